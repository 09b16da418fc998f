"""The command line, `sealproof`: one file a group of commands."""

from api.cli.main import app, main

__all__ = ["app", "main"]
