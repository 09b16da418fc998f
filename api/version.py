"""The version of this release, as pyproject.toml has it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["VERSION"]

try:
    VERSION = version("sealproof")
except PackageNotFoundError:  # run from a checkout that was not installed
    VERSION = "0+unknown"
