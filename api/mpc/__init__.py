"""What the nodes of a joint computation need around it: links with pinned keys, the dealer, suspended pairs.

The computation itself is `privacy.mpc`; docs/spec/protocol.md, section 7.
"""
