"""An environment that has what `pip install sealproof` brings, and nothing else of what this one has.

Made of links to the installed files of the project and of what it needs without any extra, so that it costs neither
time nor a network. A Python that starts with it, and without this environment's own packages, is an auditor's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

__all__ = ["base_install"]

_PROJECT: Final = "sealproof"
_PACKAGES: Final = ("privacy", "ledger", "api")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def base_install(folder: Path) -> Path:
    """Fill `folder` unless that was done, and return it. Raises OSError; PackageNotFoundError without the project."""
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    source = Path(__file__).resolve().parents[2]
    for package in _PACKAGES:
        (folder / package).symlink_to(source / package)
    for found in _needed(_PROJECT, set()):
        for top in _tops(found):
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder


def _needed(name: str, seen: set[str]) -> Iterator[Distribution]:
    """A distribution and all that it needs, extras left out; what a marker leaves out here is not installed either."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    seen.add(key)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        if name == _PROJECT:
            raise
        return
    yield found
    for requirement in found.requires or ():
        match = _NAME.match(requirement)
        if match is not None and "extra" not in requirement.partition(";")[2]:
            yield from _needed(match[0], seen)


def _tops(found: Distribution) -> set[str]:
    """Names of its files and folders where packages lie: modules, libraries beside them, and its own description."""
    tops = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
    if found.name == _PROJECT:  # its packages are linked already, however it was installed
        return {top for top in tops if top.endswith((".dist-info", ".egg-info"))}
    return tops
