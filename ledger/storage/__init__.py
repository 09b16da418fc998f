"""Storage backends of the log; each passes the same conformance suite."""
