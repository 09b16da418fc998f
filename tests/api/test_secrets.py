"""What must never be on the server, is not: searched for in every byte that it stored, answered or logged."""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from api.entries import Reference
from privacy.ckks.backend import secret_key_to_seal
from privacy.models.statements import decode_opening
from tests.api.conftest import Caller, CertifiedKey, CertifiedModel, Running, Upload, ok

_WINDOW = 48


def forms(name: str, vector: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """The ways in which a program might write a secret vector."""
    for dtype in ("<i8", "<i4", "<i2", "i1"):
        yield f"{name} as {dtype}", vector.astype(dtype).tobytes()
    yield f"{name} + 1 as bytes", (vector + 1).astype(np.uint8).tobytes()
    yield f"{name} + 21 as bytes", (vector + 21).astype(np.uint8).tobytes()
    yield f"{name} in decimal", ",".join(map(str, vector.tolist())).encode()
    yield f"{name} in JSON", ", ".join(map(str, vector.tolist())).encode()


@pytest.fixture(scope="module")
def forbidden(certified_key: CertifiedKey, clinic_party: Caller, owner_party: Caller) -> dict[str, bytes]:
    """Bytes that betray a secret, by name: a window from the middle of each form."""
    keys = certified_key.keys
    whole = dict([*forms("s", keys.s), *forms("e_pk", keys.e_pk)])
    whole["s as SEAL writes it"] = secret_key_to_seal(keys.params, keys.s)
    found = {name: data[len(data) // 2 : len(data) // 2 + _WINDOW] for name, data in whole.items()}
    for party in (clinic_party, owner_party):
        raw = party.private_key.private_bytes_raw()
        found[f"{party.name}'s signing key"] = raw
        found[f"{party.name}'s signing key in hex"] = raw.hex().encode()
        found[f"{party.name}'s signing key in base64"] = base64.b64encode(raw)[:40]
    # A window of zeros would be found anywhere: it says nothing and betrays nothing.
    return {name: data for name, data in found.items() if len(set(data)) > 1}


def search(data: bytes, forbidden: dict[str, bytes]) -> list[str]:
    return [name for name, secret in forbidden.items() if secret in data]


def stored(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


@pytest.fixture(scope="module")
def used(
    service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference
) -> tuple[list[bytes], list[str]]:
    """Answers and log lines of a server that did all of its work once."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        records = clinic_party.submit(upload_cohort(4).body)
        job = ok(clinic_party.predict(records.index, model_entry.index, secrets.token_hex(32)))["job"]
        prediction = clinic_party.wait(job)["prediction"]
        clinic_party.predict(records.index, 0, secrets.token_hex(32))  # a refusal, which is logged or not
        answers = [service.client.get(f"/v1/predictions/{prediction}/bundle?inputs=true").content]
        answers += [service.client.get(path).content for path in ("/v1/models", "/v1/exposure", "/v1/health")]
        size = service.service.log.size
        answers += [service.client.get(f"/v1/ledger/entries/{index}").content for index in range(size)]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return answers, lines


def test_the_search_finds_what_it_looks_for(
    forbidden: dict[str, bytes], certified_key: CertifiedKey, tmp_path: Path
) -> None:
    assert len(forbidden) >= 12
    certified_key.keys.save(tmp_path / "clinic.key")
    found = [name for _, data in stored(tmp_path) for name in search(data, forbidden)]
    assert set(found) == {"s + 1 as bytes", "e_pk + 21 as bytes"}


def test_no_secret_of_a_clinic_or_owner_is_stored(
    used: tuple[list[bytes], list[str]], service: Running, forbidden: dict[str, bytes]
) -> None:
    files = dict(stored(service.settings.data))
    assert len(files) > 20
    assert {str(path): found for path, data in files.items() if (found := search(data, forbidden))} == {}


def test_no_secret_is_answered_or_logged(
    used: tuple[list[bytes], list[str]],
    service: Running,
    forbidden: dict[str, bytes],
    certified_model: CertifiedModel,
) -> None:
    answers, lines = used
    weights = decode_opening(certified_model.opening).outputs
    everywhere = dict(forbidden)
    for number, output in enumerate(weights):
        everywhere[f"rho {number}"] = str(output.rho).encode()
        everywhere[f"bias {number}"] = str(output.bias).encode()
        for i, weight in enumerate(output.weights):
            everywhere[f"weight {number}.{i}"] = f'"{weight}"'.encode()
    everywhere["server key"] = (service.settings.data / "server.key").read_bytes().split()[-1]
    everywhere["log key"] = (service.settings.data / "log.key").read_bytes().strip()[-30:]
    for data in (*answers, "\n".join(lines).encode()):
        assert search(data, everywhere) == []


def test_weights_are_in_one_private_file_only(
    used: tuple[list[bytes], list[str]], service: Running, certified_model: CertifiedModel
) -> None:
    rho = str(decode_opening(certified_model.opening).outputs[0].rho).encode()
    holders = [path for path, data in stored(service.settings.data) if rho in data]
    assert [path.suffix for path in holders] == [".opening"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
