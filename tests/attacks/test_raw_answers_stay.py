"""Raw answers stay in the clinic's process: nothing that leaves it holds one, in whatever spelling.

CKKS is not secure when raw decryptions are shown to others (IND-CPA-D; docs/spec/protocol.md, section 6). The whole
story of a clinic is told with each scheme, everything that leaves is kept, unfolded and searched. The search is not
trusted for finding nothing: builds that let an answer out, each in another way, must be caught by it.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.cli.main import main
from api.client import consents, disclosure, disclosure_bundle, scores, transport
from api.client.consumer import Consumer
from api.client.delivery import DELIVERY_BOX
from api.client.questions import question_of
from api.client.raw_answers import RawAnswers
from api.client.scores import Scores
from api.entries import Disclosure, decode_entry
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import LinearModel
from privacy.sealed import open_sealed
from tests.support import pairs, telling
from tests.support.pairs import IDS, RISK
from tests.support.service import RunningServer, listening
from tests.support.telling import HIGH, LOW, Told
from tests.support.walking import Outgoing, Walker, secrets_of, unfolded

ODD = LinearModel(
    "risk", np.array([[0.0203117, -0.0519113, 0.9071391]]), np.array([-0.2617117]), ("risk",), "logit", RISK.schema
)
"""Answers that are no round numbers."""


@dataclass
class Story:
    """A clinic of which everything that left so far was kept."""

    told: Told
    insurer: Consumer
    outgoing: Outgoing
    folder: Path
    scores: Scores
    screens: dict[str, bytes] = field(default_factory=dict)

    def command(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        """A command of the clinic, and all that it shows."""
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEALPROOF_HOME", str(self.folder / "home"))
            patch.setattr(sys, "argv", ["sealproof", *map(str, arguments), "-f", str(self.told.clinic.session.folder)])
            with pytest.raises(SystemExit) as ended:
                main()
        shown = capsys.readouterr()
        assert ended.value.code == 0, (arguments, shown)
        self.screens[f"screen {len(self.screens)} of {' '.join(map(str, arguments[:2]))}"] = (
            shown.out + shown.err
        ).encode()

    def end(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Open, grant, show, refuse: by the library and by the commands."""
        told, clinic = self.told, self.told.clinic
        self.command(capsys, "clinic", "open", told.bundle, "--scores", self.folder / "scores.csv")
        self.command(capsys, "clinic", "open", told.bundle, "--json")
        asked = self.insurer.request(
            clinic.name,
            [told.exact(HIGH), told.threshold(IDS[2], 0.55), told.threshold(LOW, 0.2)],
            purpose="a claim",
            model=told.model,
        )
        refused = self.insurer.request(clinic.name, [told.exact(LOW)], purpose="another", model=told.model)
        self.command(capsys, "clinic", "requests", "--json")
        self.command(capsys, "clinic", "requests")
        self.command(capsys, "clinic", "grant", asked.index, "--json")
        held = clinic.grants()[-1]
        save = ("--save", self.folder / "shown.sealproof")
        self.command(capsys, "clinic", "disclose", held.index, told.bundle, *save, "--json")
        self.command(capsys, "clinic", "disclose", held.index, told.bundle, *save)
        self.command(capsys, "clinic", "refuse", refused.index)
        nonce = bytes([9] * 32)
        whole = question_of(told.model, IDS[4], kind="open" if told.scheme == "mpc" else "exact")
        told.show(self.folder / "nonce.sealproof", nonce, whole)
        self.insurer.collect(asked, self.folder / "collected.sealproof")

    def walk(self) -> Walker:
        """Search everything that left."""
        body = self.scores.verified.model.body
        scale, raw = self.scale_bits, self.scores.raw.reveal_raw()
        walker = Walker(secrets_of(raw, scale, body.grid_bits))
        self.outgoing.walk(walker)
        if self.told.pair is not None:
            for role, link in self.told.pair.links.items():
                for label, data in link.frames:
                    walker.walk(f"node {role}, {label}", data)
        for name, data in self.screens.items():
            walker.walk(name, data)
        walker.walk("repr", repr(self.scores).encode() + str(self.scores.raw).encode())
        for name, data in self.delivered():
            walker.walk(name, data)
        # What the patient of a committed answer agreed to show whole is in the file that was made for this.
        files = Walker(secrets_of(raw, scale, body.grid_bits, [4] if self.told.scheme == "mpc" else []))
        for path in [*self.folder.glob("*.sealproof"), *self.folder.glob("*.csv"), *self.told.bundles]:
            (files if path.name == "nonce.sealproof" else walker).walk(path.name, path.read_bytes())
        walker.found += files.found
        walker.walked += files.walked
        return walker

    @property
    def scale_bits(self) -> int:
        verified: Any = self.scores.verified
        if self.told.scheme == "mpc":
            return int(verified.answer_scale_bits)
        return int(verified.prediction.body.error_bound.scale_bits)

    def delivered(self) -> Iterator[tuple[str, bytes]]:
        """What lies sealed on the server, opened as the consumer does."""
        session, mailbox = self.insurer.session, self.insurer.session.identity.mailbox
        assert mailbox is not None
        number = 0
        for index in range(self.told.log_size()):
            body = decode_entry(session.server.entry(index)).body
            if isinstance(body, Disclosure) and body.delivery is not None and body.grant is not None:
                box = session.server.blob(body.delivery)
                try:
                    opened = open_sealed(box, mailbox, purpose=DELIVERY_BOX, context=body.grant.leaf)
                except VerificationFailed:
                    continue  # another consumer's
                number += 1
                yield f"delivery {index}", opened
        assert number


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with listening(tmp_path_factory.mktemp("walked") / "server") as server:
        yield server


def begin(told: Told, outgoing: Outgoing, folder: Path) -> Story:
    bundle = told.predict()
    told.clinic.fetch(told.clinic.requests()[-1], folder / "with-inputs.sealproof", inputs=True)
    consumer = told.consumer(folder / "insurer")
    return Story(told, consumer, outgoing, folder, told.clinic.open_bundle(bundle))


@pytest.fixture(scope="module")
def encrypted(service: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("encrypted")
    with pytest.MonkeyPatch.context() as patch:
        outgoing = Outgoing(patch)
        with telling.tell_encrypted(service, folder, ODD) as told:
            yield begin(told, outgoing, folder)


@pytest.fixture(scope="module")
def committed(service: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("committed")
    with pytest.MonkeyPatch.context() as patch:
        outgoing = Outgoing(patch)
        patch.setattr(pairs, "RISK", ODD)
        with telling.tell_committed(service, folder) as told:
            yield begin(told, outgoing, folder)


@pytest.mark.parametrize("scheme", ["encrypted", "committed"])
def test_nothing_that_leaves_a_clinic_holds_a_raw_answer(
    scheme: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    story: Story = request.getfixturevalue(scheme)
    with story.told.forgotten():
        story.end(capsys)
        walker = story.walk()
    assert walker.found == []
    assert len(story.outgoing.sent) > 100
    assert walker.walked > 300_000
    assert len(story.screens) == 8
    # The search looks into what is there: what was shown was found in delivery and file, on the grid.
    steps = story.scores.raw.nearest(1, 0, 6)
    layers = [layer for _, data in story.delivered() for _, layer in unfolded("", data)]
    layers += [layer for _, layer in unfolded("", (story.folder / "shown.sealproof").read_bytes())]
    assert sum(f'"value":"{steps}"'.encode() in layer for layer in layers) >= 2


# -- weakened builds --------------------------------------------------------------------------------------------------

Leak = Callable[[pytest.MonkeyPatch, Story], None]


def _beside(patch: pytest.MonkeyPatch, story: Story, told: Callable[[np.ndarray[Any, Any], int], bytes]) -> None:
    """A blob that is sent with every entry."""
    honest, raw = transport.Server.append, story.scores.raw.reveal_raw()
    integer = round(float(raw[1, 0]) * 2**story.scale_bits)

    def append(server: transport.Server, entry: bytes) -> Any:
        if server.identity is not None and server.identity.role == "clinic":
            server.put_blob(told(raw, integer))
        return honest(server, entry)

    patch.setattr(transport.Server, "append", append)


def in_a_header(patch: pytest.MonkeyPatch, story: Story) -> None:
    honest, raw = transport.Server._signature, story.scores.raw.reveal_raw()

    def signature(*arguments: Any) -> dict[str, str]:
        return {**honest(*arguments), "x-debug": repr(float(raw[2, 0]))}

    patch.setattr(transport.Server, "_signature", signature)


def in_an_address(patch: pytest.MonkeyPatch, story: Story) -> None:
    honest, raw = transport.Server.proof, story.scores.raw.reveal_raw()

    def proof(server: transport.Server, index: int) -> bytes:
        server._get(f"/v1/health?last={float.hex(abs(float(raw[0, 0])))}", 1 << 20)
        return honest(server, index)

    patch.setattr(transport.Server, "proof", proof)


def as_decimal_integer(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: json.dumps({"answer": integer}).encode())


def as_hex_of_an_integer(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: b"answer=%x;" % abs(integer))


def as_float64_bytes(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: b"\0" + raw.astype("<f8").tobytes())


def as_float64_in_base64_in_json(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, _: json.dumps({"a": base64.b64encode(b"a" + raw.tobytes()).decode()}).encode())


def as_float32_bytes(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: raw.astype(">f4").tobytes())


def as_float64_in_hex(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: b"0x" + struct.pack(">d", raw[1, 0]).hex().encode())


def rounded_to_four_digits(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: json.dumps({"p": [round(float(raw[1, 0]), 4)]}).encode())


def rounded_to_three_digits_in_text(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: f"the answer is {raw[1, 0]:.3f}, well".encode())


def as_a_probability(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: f"p = {1 / (1 + np.exp(-raw[1, 0])):.6f}".encode())


def in_a_pickle_in_gzip(patch: pytest.MonkeyPatch, story: Story) -> None:
    _beside(patch, story, lambda raw, integer: gzip.compress(pickle.dumps({"raw": raw.tolist()})))


def in_the_bundle(patch: pytest.MonkeyPatch, story: Story) -> None:
    honest = disclosure_bundle.write_disclosure_bundle
    integer = round(float(story.scores.raw.reveal_raw()[1, 0]) * 2**story.scale_bits)

    def write(session: Any, source: Path, path: Path, entries: Any, blobs: Any) -> None:
        honest(session, source, path, entries, [*blobs, b"x" + integer.to_bytes(16, "little", signed=True)])

    patch.setattr(disclosure, "write_disclosure_bundle", write)


def in_the_sealed_delivery(patch: pytest.MonkeyPatch, story: Story) -> None:
    honest = disclosure.pack_delivery
    integer = round(float(story.scores.raw.reveal_raw()[1, 0]) * 2**story.scale_bits)

    def pack(statement: bytes, proof: bytes, grant: bytes) -> bytes:
        return honest(statement, proof, grant)[:-9] + integer.to_bytes(9, "big", signed=True)

    patch.setattr(disclosure, "pack_delivery", pack)


def on_the_screen(patch: pytest.MonkeyPatch, story: Story) -> None:
    from api.cli import clinic as commands

    honest = commands.print_json

    def shown(value: Any) -> None:
        honest({**value, "best": f"{float(story.scores.raw.reveal_raw().max()):.3f}"})

    patch.setattr(commands, "print_json", shown)


def in_the_csv(patch: pytest.MonkeyPatch, story: Story) -> None:
    patch.setattr(RawAnswers, "on_grid", lambda raw, grid_bits: raw.reveal_raw())


def in_the_statement_of_a_grant(patch: pytest.MonkeyPatch, story: Story) -> None:
    honest, raw = consents.GrantDocument.encode, story.scores.raw.reveal_raw()

    def encode(document: Any) -> bytes:
        return honest(replace(document, purpose=f"{document.purpose} {raw[3, 0]:+.5f}"))

    patch.setattr(consents.GrantDocument, "encode", encode)


BLOBS: list[Leak] = [
    as_decimal_integer,
    as_hex_of_an_integer,
    as_float64_bytes,
    as_float64_in_base64_in_json,
    as_float32_bytes,
    as_float64_in_hex,
    rounded_to_four_digits,
    rounded_to_three_digits_in_text,
    as_a_probability,
    in_a_pickle_in_gzip,
    in_a_header,
    in_an_address,
]
STORIES: list[Leak] = [in_the_bundle, in_the_sealed_delivery, on_the_screen, in_the_csv, in_the_statement_of_a_grant]


@pytest.mark.parametrize("leak", BLOBS, ids=lambda leak: leak.__name__)
@pytest.mark.parametrize("scheme", ["encrypted", "committed"])
def test_a_build_that_sends_an_answer_along_is_caught(
    scheme: str, leak: Leak, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    story: Story = request.getfixturevalue(scheme)
    before = len(story.outgoing.sent)
    with story.told.forgotten(), pytest.MonkeyPatch.context() as patch:
        leak(patch, story)
        story.told.grant(bytes([8] * 32), story.told.exact(HIGH))
    sent, story.outgoing.sent = story.outgoing.sent[before:], story.outgoing.sent[:before]
    walker = Walker(secrets_of(story.scores.raw.reveal_raw(), story.scale_bits, 6))
    for name, data in sent:
        walker.walk(name, data)
    assert walker.found, "the search misses this leak"


@pytest.mark.parametrize("leak", STORIES, ids=lambda leak: leak.__name__)
def test_a_build_that_shows_an_answer_in_what_it_writes_is_caught(
    leak: Leak, encrypted: Story, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    story = replace(encrypted, folder=tmp_path, screens={})
    with story.told.forgotten(), pytest.MonkeyPatch.context() as patch:
        leak(patch, story)
        told = story.told
        if leak in (on_the_screen, in_the_csv):
            story.command(capsys, "clinic", "open", told.bundle, "--scores", tmp_path / "scores.csv", "--json")
        else:
            asked = story.insurer.request(told.clinic.name, [told.exact(HIGH)], purpose=leak.__name__, model=told.model)
            held = told.clinic.grant(asked.index)
            told.clinic.disclose(held.index, told.bundle, tmp_path / "shown.sealproof")
        kept, story.outgoing = story.outgoing, replace_sent(story.outgoing)
        walker = story.walk() if leak not in (on_the_screen, in_the_csv) else _local(story)
    assert walker.found, "the search misses this leak"
    story.outgoing = kept


def replace_sent(outgoing: Outgoing) -> Outgoing:
    """Nothing of what was sent: the leak is in what was written."""
    empty = copy.copy(outgoing)
    empty.sent = []
    return empty


def _local(story: Story) -> Walker:
    walker = Walker(secrets_of(story.scores.raw.reveal_raw(), story.scale_bits, 6))
    for name, data in story.screens.items():
        walker.walk(name, data)
    walker.walk("scores.csv", (story.folder / "scores.csv").read_bytes())
    return walker


# -- the type ---------------------------------------------------------------------------------------------------------


def test_raw_answers_are_not_printed_copied_or_turned_into_bytes(encrypted: Story) -> None:
    raw = encrypted.scores.raw
    digits = [repr(abs(value))[:8] for value in raw.reveal_raw().ravel().tolist()]
    for shown in (repr(raw), str(raw), f"{raw}", repr(encrypted.scores)):
        assert not any(digit in shown for digit in digits)
    for folded in (pickle.dumps, copy.copy, copy.deepcopy, bytes, np.array, np.asarray, lambda x: x.__getstate__()):
        with pytest.raises(UsageError, match="stay in this process"):
            folded(raw)
    for folded in (json.dumps, list, tuple, sorted, iter, len, vars, memoryview, lambda x: x[0], lambda x: 1 in x):
        with pytest.raises(TypeError):
            folded(raw)
    for whole in (pickle.dumps, copy.deepcopy, asdict):
        with pytest.raises((UsageError, TypeError)):
            whole(encrypted.scores)


def test_what_people_read_is_on_the_grid(encrypted: Story, committed: Story) -> None:
    for story in (encrypted, committed):
        found = story.scores
        on_grid = found.raw.on_grid(found.grid_bits) * 2**found.grid_bits
        assert np.array_equal(on_grid, np.round(on_grid))
        assert (np.abs(found.raw.on_grid(found.grid_bits) - found.raw.reveal_raw()) <= 2.0**-found.grid_bits / 2).all()
        assert np.array_equal(found.values, 1 / (1 + np.exp(-found.raw.on_grid(found.grid_bits))))
        assert np.abs(found.raw.on_grid(6) - ODD.predict_raw(pairs.PATIENTS)).max() <= float(max(found.shown_bounds))
    assert scores.RawAnswers is RawAnswers
