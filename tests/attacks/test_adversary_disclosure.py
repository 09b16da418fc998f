"""Attacks on disclosures by whoever is shown something: more of an answer, or of the clinic's key, than was granted.

Server, clinic and consumer are the real ones. A consumer combines what it is told with what it is not told.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from api.client.clinic import Clinic
from api.client.consents import HeldGrant
from api.client.raw_answers import RawAnswers
from api.consent import Scope
from api.entries import Disclosure, decode_entry
from privacy.bundle import BundleReader
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.policy import WeightPolicy
from tests.support import consumers
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.consumers import COUNT, Story, tell
from tests.support.service import listening

GRID = 6


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("adversary")
    with listening(folder / "server") as server:
        yield tell(server, folder)


# -- more of an answer than was granted -------------------------------------------------------------------------------


def test_to_within_a_quarter_tells_no_sixty_fourth() -> None:
    """An interval around the nearest point of the whole grid says where in its middle the answer is."""
    draw, scale = random.Random(1), 40
    step = 1 << (scale - GRID)
    for tolerance in (1, 2, 3, 16, 1000):
        values = [draw.randrange(-40 * step, 40 * step) for _ in range(300)]
        values += [n * step * tolerance + off for n in (-2, -1, 0, 1) for off in (-1, 0, 1, tolerance * step // 2)]
        raw = RawAnswers([[value, -value] for value in values], scale)
        said = set()
        for patient, value in enumerate(values):
            for versus, meant in ((None, value), (1, 2 * value)):
                n = raw.nearest(patient, 0, GRID, versus, tolerance)
                assert n % tolerance == 0
                assert step * (n - tolerance) <= meant < step * (n + tolerance)  # as it is proven
            said.add(raw.nearest(patient, 0, GRID, None, tolerance))
        assert len(said) <= 80 // tolerance + 8


def test_a_wide_interval_is_no_narrow_one(told: Story, tmp_path: Path) -> None:
    """The answer is 2.0625 on the grid; whoever agreed to show it to within a half has not agreed to show that."""
    asked, _ = told.shown(*told.patients(), kind="exact", tolerance=0.5)
    (fact,) = told.consumer.collect(asked, tmp_path / "wide.sealproof").facts
    assert (fact.value, fact.tolerance) == (128, 32)


# -- more of a key than is counted ------------------------------------------------------------------------------------


def _forget(told: Story) -> None:
    for path in (told.clinic.session.folder / "keys").glob("*.shown.json"):
        path.unlink()


def _misses(told: Story) -> HeldGrant:
    return told.granted(*told.patients(), kind="threshold", threshold=0.99)[1]


def test_a_threshold_that_is_not_reached_is_counted(told: Story) -> None:
    """A server that brings an answer near a threshold learns from silence what it would learn from a proof.

    It knows its own blur. With misses that are free, it moves an answer up prediction by prediction until it is shown,
    and knows then where the decryption was, noise and all: an equation about s, where the cap counts one bit.
    """
    _forget(told)
    careful = Clinic.open(told.clinic.session.folder, disclosure_cap=3)
    first = _misses(told)
    for _ in range(3):  # the same again tells nothing new
        with pytest.raises(UsageError, match="does not reach this threshold"):
            careful.disclose(first.index, told.bundle)
    again = consumers.predict(careful, told.records, told.model, told.bundle.with_name("again.sealproof"))
    with pytest.raises(UsageError, match="does not reach this threshold"):
        careful.disclose(first.index, again)  # the same of another prediction does
    with pytest.raises(UsageError, match="does not reach this threshold"):
        careful.disclose(_misses(told).index, told.bundle)
    size = told.log_size
    reached = told.granted(*told.patients())[1]
    for held in (_misses(told), reached):
        with pytest.raises(UsageError, match=r"3 answers were disclosed .* cap of 3"):
            careful.disclose(held.index, told.bundle)
    assert told.log_size == size + 4  # requests and grants alone
    careful.close()
    _forget(told)


def test_a_renamed_folder_remembers(told: Story, tmp_path: Path) -> None:
    (record,) = told.patients()
    told.shown(record, kind="threshold", threshold=0.6)
    folder = told.clinic.session.folder
    count = sorted(folder.glob("keys/*.shown.json"))[0].read_bytes()
    moved = folder.rename(tmp_path / "moved")
    try:
        with Clinic.open(moved, client=told.server.client) as clinic:
            asked = told.ask(record, kind="threshold", threshold=0.55)
            held = clinic.grant(asked.index)
            with pytest.raises(UsageError, match="something else was disclosed about this answer"):
                clinic.disclose(held.index, told.bundle)
    finally:
        moved.rename(folder)
    assert sorted(folder.glob("keys/*.shown.json"))[0].read_bytes() == count


# -- what a file tells whoever has it ---------------------------------------------------------------------------------


def test_a_file_names_one_patient_and_no_other(told: Story, tmp_path: Path) -> None:
    """It holds the ciphertexts of all. Of the others' handles it has hashes along one path, of blinded ones."""
    (record,) = told.patients()
    asked, _ = told.shown(record)
    path = tmp_path / "one.sealproof"
    found = told.consumer.collect(asked, path)
    handles = told.records.handles
    with BundleReader(path) as reader:
        whole = b"".join(reader.entry(index) for index in reader.entry_indices())
        statement = reader.blob(found.entry.body.statement)
        proof = reader.blob(found.entry.body.proof)
        small = [blob for blob in map(reader.blob, reader.blob_digests()) if len(blob) < 1 << 15]
    whole += b"".join(small) + proof
    whole += base64.b64decode(_payload(statement))
    assert f'"{record}"'.encode() in whole
    for patient, other in enumerate(handles.ids):
        if other == record:
            assert handles.salts[patient].hex().encode() in whole
            continue
        assert f':"{other}"'.encode() not in whole
        for secret in (handles.salts[patient], handles.handles[patient]):
            assert secret not in whole and secret.hex().encode() not in whole
    siblings = [hashlib.sha256(b"\0" + handle).digest() for handle in handles.handles]
    shown = sum(leaf.hex().encode() in whole for leaf in siblings)
    assert shown == 1  # the neighbour's leaf, which says nothing without its salt
    assert len(found.prediction.records.body.handles) == 32 and found.prediction.count == COUNT


def _payload(envelope: bytes) -> bytes:
    payload: str = json.loads(envelope)["payload"]
    return payload.encode()


def test_the_ledger_does_not_tell_one_question_from_another(told: Story) -> None:
    """The same is asked twice, granted twice and shown twice: no digest comes back, and no time but the default's."""
    (record,) = told.patients()
    seen: list[bytes] = []
    for number in range(2):
        asked = told.consumer.request(
            told.clinic.name, [told.question(record)], purpose=f"number {number}", model=told.model
        )
        held = told.clinic.grant(asked.index, until="2100-01-01T00:00:00Z")
        size = told.log_size
        told.clinic.disclose(held.index, told.bundle)
        server = told.consumer.session.server
        entry = decode_entry(server.entry(size)).body
        assert isinstance(entry, Disclosure) and entry.delivery is not None
        seen += [asked.document.digest, held.document.digest, entry.statement, entry.proof, entry.delivery]
        seen += [asked.document.nonce, held.document.salt]
    assert len(set(seen)) == len(seen)


# -- what a cohort that is submitted again allows ---------------------------------------------------------------------


def test_the_same_patients_in_a_new_records_entry_are_new_answers(told: Story, tmp_path: Path) -> None:
    """A limit of the rule, not of the code: another threshold may be shown of them, and only the clinic can know."""
    (record,) = told.patients()
    told.shown(record)
    values = np.tile(PATIENTS[1], (2, 1))
    again = told.clinic.submit(SCHEMA.cohort(values, [record, "somebody"]), told.model)
    bundle = consumers.predict(told.clinic, again, told.model, tmp_path / "again.sealproof")
    asked = told.ask(record, kind="threshold", threshold=0.55)
    held = told.clinic.grant(asked.index)
    with pytest.raises(UsageError, match="something else was disclosed"):
        told.clinic.disclose(held.index, told.bundle)
    told.clinic.disclose(held.index, bundle)
    found = told.consumer.collect(asked, tmp_path / "second.sealproof")
    assert found.prediction.records.reference == again.reference != told.records.reference
    # Who asks about one cohort gets one statement.
    document = told.consumer.request(
        told.clinic.name,
        [told.question(record, kind="threshold", threshold=0.5)],
        purpose="a study",
        model=told.model,
        records=told.records.index,
    ).document
    assert document.scope == Scope(None, told.model.reference, told.records.reference)


def test_nothing_is_shown_of_records_that_the_clinic_has_withdrawn(told: Story, tmp_path: Path) -> None:
    """A consumer who was granted something before may wait for it; the patients have changed their minds."""
    records = told.clinic.submit(SCHEMA.cohort(PATIENTS[1:2], ["p-withdrawn"]), told.model)
    bundle = consumers.predict(told.clinic, records, told.model, tmp_path / "withdrawn.sealproof")
    _, held = told.granted("p-withdrawn")
    told.clinic.session.revoke(records.reference, "consent withdrawn")
    size = told.log_size
    with pytest.raises(VerificationFailed, match=r"consent\.revoked: entry \d+ has withdrawn the records"):
        told.clinic.disclose(held.index, bundle)
    assert told.log_size == size


# -- files of others --------------------------------------------------------------------------------------------------


def test_a_weight_policy_of_dots_takes_no_hour() -> None:
    """tomllib walks through all names of a dotted one for each of them."""
    with pytest.raises(DecodeError, match="a line of more than 1024 bytes"):
        WeightPolicy.parse(b"a" + b".a" * 50_000 + b" = 1")
    with pytest.raises(DecodeError, match="unknown name"):
        WeightPolicy.parse(b"a" + b".a" * 500 + b" = 1")
