"""Service, SDK and command line: the only place where an attestation meets a log."""
