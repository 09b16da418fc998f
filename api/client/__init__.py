"""SDK: what a clinic, a model owner and an auditor call from Python."""
