"""Where an owner keeps what belongs to a published model, and how: everything is written before it is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from privacy.errors import UsageError
from privacy.models.linear import LinearModel
from privacy.models.network import Network
from privacy.models.network_artefact import encode_any_model, load_any_model, save_any_model
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["MODEL_FILE", "Scheme", "existing_folder", "keep_model", "kept", "model_folder", "opening_path"]

Scheme = Literal["ckks", "mpc"]
"""How a model is computed with: on encrypted records, or together with the clinic."""

MODEL_FILE: Final = "model.json"
_MAX_KEPT: Final = 1 << 27


def model_folder(owner: Path, name: str, version: str) -> Path:
    """The folder of a model in that of its owner, made if there is none. Its name says nothing and fits any name."""
    return private_folder(private_folder(owner / "models") / _folder_name(name, version))


def existing_folder(owner: Path, name: str, version: str) -> Path:
    """The folder of a model that was published from here. Raises UsageError if it was not."""
    folder = owner / "models" / _folder_name(name, version)
    if not folder.is_dir():
        raise UsageError(f"this folder does not hold the opening of {name!r} {version!r}")
    return folder


def kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """What `path` holds, made and written first if it does not exist."""
    if not path.exists():
        write_private(path, make())
    return read_private(path, _MAX_KEPT, path.name)


def keep_model(folder: Path, scheme: Scheme, model: LinearModel | Network, version: str) -> Path:
    """Keep the float model until its opening exists; from then on, it must be this one. Returns the opening's path.

    Raises UsageError for another model, and for one that was published from here for the other scheme.
    """
    opening = opening_path(folder, scheme)
    other = opening_path(folder, "mpc" if scheme == "ckks" else "ckks")
    if other.exists():
        raise UsageError(f"{model.name!r} {version!r} was published for another scheme: use a new version")
    if not opening.exists():
        save_any_model(model, folder / MODEL_FILE)
    elif encode_any_model(load_any_model(folder / MODEL_FILE)) != encode_any_model(model):
        raise UsageError(f"another model was published as {model.name!r} {version!r}: use a new version")
    return opening


def opening_path(folder: Path, scheme: Scheme) -> Path:
    """Where the opening of the model in `folder` is kept."""
    return folder / ("opening.json" if scheme == "ckks" else "network-opening.json")


def _folder_name(name: str, version: str) -> str:
    return hashlib.sha256(f"{len(name)}/{name}{version}".encode()).hexdigest()[:32]
