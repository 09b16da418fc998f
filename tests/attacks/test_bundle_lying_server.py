"""A server that answers garbage, or cleverly wrong: the clinic refuses, in words, and decrypts nothing.

The real service runs behind a liar that replaces some of its answers; decryptions are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api.client.clinic import Clinic, PredictionRequest, SubmittedRecords
from api.client.transport import ServerError
from ledger.errors import LedgerError
from privacy.errors import DecodeError, VerificationFailed
from privacy.models.linear import LinearModel
from tests.support import bundles
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.service import RunningServer

MODEL = LinearModel("liar-heart", np.array([[0.02, 0.0, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)


class Liar:
    """Stands where the HTTP client stands. `lies` maps the beginning of a path to (status, body)."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.lies: dict[str, tuple[int, bytes]] = {}

    @contextmanager
    def stream(self, method: str, path: str, **kwargs: Any) -> Iterator[httpx.Response]:
        for start, (status, body) in self.lies.items():
            if path.startswith(start):
                yield httpx.Response(status, content=body, request=httpx.Request(method, f"http://liar{path}"))
                return
        with self._client.stream(method, path, **kwargs) as response:
            yield response


@pytest.fixture(scope="module")
def liar(server: RunningServer) -> Liar:
    return Liar(server.client)


@pytest.fixture(scope="module")
def clinic(server: RunningServer, liar: Liar, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    folder = tmp_path_factory.mktemp("liar")
    server.owner(folder / "owner", "liar-lab").publish(MODEL, version="1")
    server.clinic(folder / "clinic", "liar-clinic")
    clinic = Clinic.open(folder / "clinic", client=liar)  # type: ignore[arg-type]
    clinic.session.server._retries = 0
    return clinic


@pytest.fixture(scope="module")
def records(clinic: Clinic) -> SubmittedRecords:
    return clinic.submit(SCHEMA.cohort(PATIENTS), "liar-heart")


@pytest.fixture(scope="module")
def asked(clinic: Clinic, records: SubmittedRecords, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """A request and the honest bundle that answers it."""
    request = clinic.request(records, "liar-heart")
    path = clinic.fetch(request, tmp_path_factory.mktemp("honest") / "b.sealproof", inputs=True, timeout=120)
    return request, path.read_bytes()


@pytest.fixture
def decrypted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every ciphertext that anything tries to decrypt."""
    calls: list[object] = []

    def record(keys: object, result: object) -> None:
        calls.append(result)
        raise AssertionError("decrypted")

    monkeypatch.setattr("privacy.ckks.keys.ClinicKeys.decrypt_integers_unverified", record)
    return calls


@pytest.fixture(autouse=True)
def honest_again(liar: Liar) -> Iterator[None]:
    yield
    liar.lies.clear()


def refuses(clinic: Clinic, request: PredictionRequest, decrypted: list[object]) -> str:
    with pytest.raises((VerificationFailed, DecodeError, ServerError)) as caught:
        clinic.open_bundle(clinic.fetch(request, timeout=5), request)
    assert decrypted == []
    assert str(caught.value)
    return str(caught.value)


def test_the_honest_answer_is_decrypted(clinic: Clinic, asked: tuple[Any, bytes], decrypted: list[object]) -> None:
    with pytest.raises(AssertionError, match="decrypted"):
        clinic.open_bundle(clinic.fetch(asked[0]), asked[0])
    assert len(decrypted) == 1


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("body", [b"", b"garbage", b"PK\x05\x06" + bytes(18), b'{"error":{}}', bytes(100_000)])
@pytest.mark.parametrize("path", ["/v1/predictions/", "/v1/jobs/", "/v1/ledger/checkpoint", "/v1/ledger/entries"])
def test_garbage_in_place_of_any_answer_is_refused(
    clinic: Clinic, liar: Liar, asked: tuple[Any, bytes], decrypted: list[object], path: str, body: bytes, status: int
) -> None:
    liar.lies[path] = (status, body)
    refuses(clinic, asked[0], decrypted)


def test_a_truncated_or_damaged_bundle_is_refused(
    clinic: Clinic, liar: Liar, asked: tuple[Any, bytes], decrypted: list[object]
) -> None:
    request, honest = asked
    rng = np.random.default_rng(1)
    for _ in range(40):
        place = int(rng.integers(0, len(honest)))
        for forged in (honest[:place], honest[:place] + bytes([honest[place] ^ 4]) + honest[place + 1 :]):
            liar.lies["/v1/predictions/"] = (200, forged)
            refuses(clinic, request, decrypted)


def test_a_flawless_bundle_of_another_log_is_refused(
    clinic: Clinic, liar: Liar, asked: tuple[Any, bytes], decrypted: list[object], honest_bundle: Path
) -> None:
    liar.lies["/v1/predictions/"] = (200, honest_bundle.read_bytes())
    assert "log.untrusted" in refuses(clinic, asked[0], decrypted)


def test_the_answer_to_an_older_request_is_refused(
    clinic: Clinic, liar: Liar, records: SubmittedRecords, asked: tuple[Any, bytes], decrypted: list[object]
) -> None:
    newer = clinic.request(records, "liar-heart")
    clinic.fetch(newer, timeout=60)
    liar.lies["/v1/predictions/"] = (200, asked[1])
    assert "attestation.nonce" in refuses(clinic, newer, decrypted)


def test_results_that_were_exchanged_inside_the_bundle_are_refused(
    clinic: Clinic, liar: Liar, asked: tuple[Any, bytes], decrypted: list[object], tmp_path: Path
) -> None:
    """The archive is put together again around another ciphertext: no digest names it."""
    path = tmp_path / "forged.sealproof"
    path.write_bytes(asked[1])
    found = bundles.members(path)
    largest = max((name for name in found if name.startswith("blobs/")), key=lambda name: len(found[name]))
    found[largest] = found[largest][:-1] + b"\0"
    path.unlink()
    bundles.write_members(path, found)
    liar.lies["/v1/predictions/"] = (200, path.read_bytes())
    assert "bundle.missing" in refuses(clinic, asked[0], decrypted)


def test_a_log_that_went_back_is_refused(
    clinic: Clinic, liar: Liar, asked: tuple[Any, bytes], decrypted: list[object]
) -> None:
    old = clinic.session.server.checkpoint()
    clinic.submit(SCHEMA.cohort(PATIENTS[:3]), "liar-heart")
    liar.lies["/v1/ledger/checkpoint"] = (200, old)
    assert "monitor.rollback" in refuses(clinic, asked[0], decrypted)


def test_ciphertexts_that_the_server_stored_differently_are_noticed(
    clinic: Clinic, liar: Liar, decrypted: list[object]
) -> None:
    liar.lies["/v1/ciphertexts"] = (200, b'{"digests":["%s"]}' % (b"ab" * 32))
    with pytest.raises(VerificationFailed, match=r"submit\.digests"):
        clinic.submit(SCHEMA.cohort(PATIENTS[:2]), "liar-heart")


def test_an_entry_that_the_log_does_not_include_is_noticed(clinic: Clinic, liar: Liar) -> None:
    proof = clinic.session.server.proof(0)
    liar.lies["/v1/ledger/proof/"] = (200, proof)
    with pytest.raises((VerificationFailed, DecodeError)) as caught:
        clinic.submit(SCHEMA.cohort(PATIENTS[:4]), "liar-heart")
    assert not isinstance(caught.value, LedgerError)
    liar.lies.clear()
    submitted = clinic.submit(SCHEMA.cohort(PATIENTS[:4]), "liar-heart")
    assert len(submitted.handles.ids) == 4


def test_a_model_that_is_not_on_the_log_is_not_used(clinic: Clinic, liar: Liar) -> None:
    row = b'[{"index":0,"leaf":"%s","name":"liar-heart","version":"9","revoked":false}]' % (b"ab" * 32)
    liar.lies["/v1/models"] = (200, row)
    with pytest.raises(Exception, match="is no model"):
        clinic.session.model("liar-heart")
    liar.lies = {"/v1/ledger/entries/": (200, b"{}")}
    with pytest.raises((VerificationFailed, DecodeError)):
        clinic.session.model("liar-heart")
