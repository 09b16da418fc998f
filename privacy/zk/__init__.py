"""Proof toolkit: commitments, transcript, linear and quadratic proofs (docs/spec/protocol.md)."""
