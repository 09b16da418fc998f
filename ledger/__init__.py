"""Append-only transparency log (RFC 6962, C2SP). Knows nothing of privacy: an entry is opaque bytes."""
