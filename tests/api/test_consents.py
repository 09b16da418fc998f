"""Consumers ask, a clinic grants, refuses, revokes and shows: every answer, in words and on the ledger, and crashes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from api.client.audit import verify_bundle
from api.client.clinic import Clinic
from api.client.consumer import AskedRequest, Consumer
from api.client.delivery import DELIVERY_BOX, REQUEST_BOX, pack_delivery, unpack_delivery
from api.client.questions import question_of
from api.client.shown import VerifiedDisclosure
from api.client.transport import Server, ServerRefused, ServerUnreachable
from api.consent import Question, RequestDocument, Scope
from api.entries import Disclosure, Grant, Refusal, Request, Revocation, decode_entry
from ledger import Verifier
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.sealed import seal
from tests.support.pairs import IDS
from tests.support.service import RunningServer, listening
from tests.support.telling import HIGH, LOW, PURPOSE, Told, tell_committed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with listening(tmp_path_factory.mktemp("consents") / "server") as server:
        yield server


@pytest.fixture(scope="module")
def world(service: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with tell_committed(service, tmp_path_factory.mktemp("world")) as found:
        found.predict()
        yield found


@pytest.fixture
def told(world: Told) -> Iterator[Told]:
    """The clinic, which has said nothing and granted nothing."""
    with world.forgotten():
        yield world


@pytest.fixture(scope="module")
def insurer(world: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consumer]:
    with world.consumer(tmp_path_factory.mktemp("insurer") / "consumer", "acme-life") as found:
        yield found


def ask(told: Told, consumer: Consumer, *questions: Question, **options: Any) -> AskedRequest:
    asked = questions or (told.threshold(HIGH, 0.6), told.exact(LOW))
    return consumer.request(told.clinic.name, asked, **{"purpose": PURPOSE, "model": told.model, **options})


def body(told: Told, index: int) -> Any:
    return decode_entry(told.clinic.session.server.entry(index)).body


def verified(told: Told, path: Path, asked: AskedRequest) -> VerifiedDisclosure:
    return told.verified(path, asked.document.nonce)


# -- what comes in ----------------------------------------------------------------------------------------------------


def test_a_request_is_read_granted_shown_and_collected(told: Told, insurer: Consumer, tmp_path: Path) -> None:
    asked = ask(told, insurer)
    (incoming,) = [request for request in told.clinic.incoming() if request.index == asked.index]
    assert (incoming.consumer.name, incoming.state, incoming.problem) == ("acme-life", "open", None)
    assert incoming.document == asked.document
    held = told.clinic.grant(asked.index)
    assert held.document.questions == asked.document.questions
    assert asked.index not in [request.index for request in told.clinic.incoming()]
    (incoming,) = [request for request in told.clinic.incoming(all=True) if request.index == asked.index]
    assert (incoming.state, incoming.grants) == ("granted", (held.index,))
    assert told.clinic.disclose(held.index) is None  # the consumer has a mailbox
    found = insurer.collect(asked, tmp_path / "collected.sealproof")
    assert found.sentence.startswith("risk of record 'p-71' is at least 0.40625; risk of record 'p-18' is -0.84375")
    # The file by hand, and what was collected, are the same disclosure.
    path = told.clinic.disclose(held.index, path=tmp_path / "shown.sealproof")
    assert path is not None
    assert verified(told, path, asked).entry == found.entry
    consent = verified(told, path, asked).consent
    assert consent is not None
    assert consent.consumer == incoming.consumer
    assert consent.document == held.document


def test_the_ledger_shows_who_asked_and_how_it_ended_and_nothing_else(
    told: Told, insurer: Consumer, tmp_path: Path
) -> None:
    asked = ask(told, insurer, told.exact(HIGH))
    held = told.clinic.grant(asked.index)
    size = told.log_size()
    told.clinic.disclose(held.index)
    entry = body(told, size)
    assert isinstance(entry, Disclosure)
    assert entry.grant == held.reference
    assert entry.delivery is not None
    assert isinstance(body(told, held.index), Grant)
    logged = b"".join(told.clinic.session.server.entry(i) for i in (asked.index, held.index, size))
    for secret in (HIGH, PURPOSE, asked.document.nonce.hex(), held.document.salt.hex(), "exact"):
        assert secret.encode() not in logged
    box = told.clinic.session.server.blob(entry.delivery)
    assert len(box) % (1 << 14) == 48  # of the key and the tag: the rest is filled up


def test_one_request_that_cannot_be_read_hides_no_other(
    told: Told, insurer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ask(told, insurer, told.exact(IDS[2]))
    consumer, server = insurer.session, insurer.session.server
    party = told.clinic.session.identity.party
    mailbox = told.clinic.session.identity.mailbox
    assert party is not None
    assert mailbox is not None
    public, bad = mailbox.public_key().public_bytes_raw(), []
    other = RequestDocument.decode(good.document.encode().replace(PURPOSE.encode(), b"something else"))
    boxes = [
        b"garbage",
        seal(good.document.encode(), public, purpose=DELIVERY_BOX, context=party.leaf),
        seal(good.document.encode(), public, purpose=REQUEST_BOX, context=bytes(32)),
        seal(b"garbage", public, purpose=REQUEST_BOX, context=party.leaf),
        seal(other.encode(), public, purpose=REQUEST_BOX, context=party.leaf),
    ]
    for number, box in enumerate(boxes):
        digest = server.put_blob(box)
        reference = server.append(consumer.identity.sign(Request(party, bytes([number] * 32), digest)))
        bad.append(reference.index)
    with monkeypatch.context() as patch:
        honest = Server.blob

        def blob(server: Server, digest: bytes) -> bytes:
            if digest == lost:
                raise ServerRefused(404, "not_found", None, "no such blob", "")
            return honest(server, digest)

        lost = body(told, bad[0]).box
        patch.setattr(Server, "blob", blob)
        rows = {request.index: request for request in told.clinic.incoming()}
        assert "no such blob" in str(rows[bad[0]].problem)
    assert rows[good.index].document == good.document
    for index in bad:
        assert rows[index].document is None
        assert rows[index].problem
        with pytest.raises(UsageError, match="is not known"):
            told.clinic.grant(index)
        told.clinic.refuse(index, "declined")


def test_a_text_for_another_clinic_or_by_another_consumer_is_not_taken(
    told: Told, insurer: Consumer, tmp_path: Path
) -> None:
    """Somebody logs, as its own, what another has asked: the text names the other."""
    asked = ask(told, insurer, told.exact(IDS[2]))
    with told.consumer(tmp_path / "thief") as thief:
        server = thief.session.server
        box = body(told, asked.index).box
        theft = server.append(thief.session.identity.sign(Request(asked.document.clinic, asked.document.digest, box)))
    (row,) = [request for request in told.clinic.incoming() if request.index == theft.index]
    assert row.document is None
    assert "another log, clinic or consumer" in str(row.problem)
    told.clinic.refuse(theft.index)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_less_than_was_asked_is_granted(told: Told, insurer: Consumer, tmp_path: Path) -> None:
    asked = ask(told, insurer)
    for unasked in (["nobody"], [LOW, IDS[0]], []):
        with pytest.raises(UsageError, match="nothing is asked about record"):
            told.clinic.grant(asked.index, only=unasked)
    held = told.clinic.grant(asked.index, only=[LOW], until=timedelta(days=1))
    assert held.document.questions == (told.exact(LOW),)
    with pytest.raises(VerificationFailed, match=r"consent\.scope"):
        told.clinic.disclose(held.index, records=[HIGH])
    told.clinic.disclose(held.index)
    assert [fact.record_id for fact in insurer.collect(asked).facts] == [LOW]
    more = told.clinic.grant(asked.index, only=[HIGH])
    assert more.index > held.index


def test_a_request_is_refused_once_and_for_good(told: Told, insurer: Consumer) -> None:
    asked = ask(told, insurer, told.exact(IDS[0]))
    reference = told.clinic.refuse(asked.index, "no-consent")
    entry = body(told, reference.index)
    assert isinstance(entry, Refusal)
    assert entry.reason == "no-consent"
    size = told.log_size()
    assert told.clinic.refuse(asked.index, "no-consent") == reference
    with pytest.raises(UsageError, match="other settings"):
        told.clinic.refuse(asked.index, "declined")
    with pytest.raises(ServerRefused, match=r"refused this request"):
        told.clinic.grant(asked.index)
    assert told.log_size() == size
    assert insurer.state(asked).refusal == "no-consent"
    with pytest.raises(UsageError, match="is no request of this clinic"):
        told.clinic.refuse(size)


def test_what_was_granted_is_revoked_and_not_refused(told: Told, insurer: Consumer) -> None:
    asked = ask(told, insurer, told.exact(IDS[0], 0.5))
    held = told.clinic.grant(asked.index)
    with pytest.raises(UsageError, match=f"was granted: revoke that \\({held.index}\\)"):
        told.clinic.refuse(asked.index)
    reference = told.clinic.revoke_grant(held.index, "a mistake")
    entry = body(told, reference.index)
    assert isinstance(entry, Revocation)
    assert entry.target == held.reference
    assert told.clinic.revoke_grant(held.index) == reference
    with pytest.raises(VerificationFailed, match=r"consent\.revoked"):
        told.clinic.disclose(held.index)
    again = told.clinic.grant(asked.index)
    assert again.index > reference.index
    told.clinic.disclose(again.index)


def test_what_was_withdrawn_is_neither_granted_nor_shown(told: Told, insurer: Consumer) -> None:
    first, second = ask(told, insurer, told.exact(IDS[4])), ask(told, insurer, told.exact(IDS[4], 0.25))
    held = told.clinic.grant(first.index)
    for asked in (first, second):
        insurer.withdraw(asked)
    size = told.log_size()
    with pytest.raises(VerificationFailed, match=r"consent\.revoked.*withdrawn"):
        told.clinic.disclose(held.index)
    for answer in (told.clinic.grant, told.clinic.refuse):
        with pytest.raises(UsageError, match="withdrawn by 'acme-life'"):
            answer(second.index)
    assert told.log_size() == size
    assert second.index not in [request.index for request in told.clinic.incoming()]


def test_a_grant_ends(told: Told, insurer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(told, insurer, told.exact(IDS[2], 0.5))
    for past in ("2020-01-01T00:00:00Z", timedelta(0), timedelta(days=-1)):
        with pytest.raises(UsageError, match=r"past|holds for"):
            told.clinic.grant(asked.index, until=past)
    held = told.clinic.grant(asked.index, until="2100-01-01T00:00:00Z")
    assert told.clinic.grant(asked.index) == held  # one that holds is found
    monkeypatch.setattr("api.client.consents.timestamp", lambda: "2100-01-01T00:00:01Z")
    with pytest.raises(VerificationFailed, match=r"consent\.expired"):
        told.clinic.disclose(held.index)
    monkeypatch.undo()
    later = told.clinic.grant(asked.index, until="2101-01-01T00:00:00Z")
    assert later.document.until == "2101-01-01T00:00:00Z"
    assert later.index != held.index


def test_a_question_that_no_answer_fits_is_not_granted(told: Told, insurer: Consumer) -> None:
    missing = ask(told, insurer, told.exact("nobody"), told.exact(LOW, 0.125))
    with pytest.raises(UsageError, match=r"no record 'nobody'.*no-such-answer"):
        told.clinic.grant(missing.index)
    told.clinic.grant(missing.index, only=[LOW])


def test_a_request_is_handed_over_as_a_file(told: Told, insurer: Consumer, tmp_path: Path) -> None:
    """To a clinic that registered before there were mailboxes, the only way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.client.identity._WITH_MAILBOX", frozenset({"consumer"}))
        with Clinic.init(
            tmp_path / "old", told.server.url, f"st-old-{told.log_size()}", log_key=told.server.log_key, ckks=False
        ) as clinic:
            assert clinic.session.identity.mailbox is None
            records = clinic.submit(_cohort(), told.model)
            question, path = told.exact(HIGH), tmp_path / "request.json"
            asked = insurer.request(clinic.name, [question], purpose=PURPOSE, model=told.model, save=path)
            (row,) = clinic.incoming()
            assert row.document is None
            assert "as a file" in str(row.problem)
            with pytest.raises(UsageError, match="as a file"):
                clinic.grant(asked.index)
            with pytest.raises(DecodeError):
                garbage = tmp_path / "garbage"
                garbage.write_bytes(b"{}")
                clinic.grant(garbage)
            held = clinic.grant(path)
            assert held.document.request == asked.document.digest
            (row,) = clinic.incoming(all=True)
            assert row.document == asked.document
            assert records.index < asked.index
    with pytest.raises(UsageError, match="no request of this clinic with this text"):
        told.clinic.grant(asked.document)


def _cohort() -> Any:
    from tests.support.bundles import PATIENTS, SCHEMA

    return SCHEMA.cohort(PATIENTS, IDS)


def test_somebody_who_is_not_on_the_ledger_gets_a_file(told: Told, tmp_path: Path) -> None:
    nonce = bytes([7] * 32)
    held = told.grant(nonce, told.exact(HIGH))
    assert (held.document.consumer, held.document.request) == (None, None)
    assert told.grant(nonce, told.exact(HIGH)) == held
    other = told.grant(nonce, told.exact(HIGH), purpose="something else")
    assert other != held
    path = told.clinic.disclose(held.index, path=tmp_path / "shown.sealproof")
    assert path is not None
    found = told.verified(path, nonce)
    assert found.consent is not None
    assert found.consent.request is None
    assert body(told, found.entry.reference.index).delivery is None
    with pytest.raises(UsageError, match=r"names neither|is a prediction"):
        told.grant(nonce, told.exact(HIGH), scope=Scope(None, None, None))


# -- crashes, and two at once -----------------------------------------------------------------------------------------


def crash(*arguments: object, **options: object) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where", ["log_once", "check_logged", "identity.sign", "server.append"], ids=lambda where: where.rpartition(".")[2]
)
@pytest.mark.parametrize("answer", ["grant", "refuse", "revoke_grant"])
def test_after_a_crash_the_same_is_logged_once(
    told: Told, insurer: Consumer, where: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(told, insurer, told.exact(HIGH, 0.25), purpose=f"{where} {answer}")
    argument = told.clinic.grant(asked.index).index if answer == "revoke_grant" else asked.index
    act: Callable[[int], Any] = getattr(told.clinic, answer)
    size = told.log_size()
    target = {
        "log_once": "api.client.session.Session.log_once",
        "check_logged": "api.client.session.Session.check_logged",
        "identity.sign": "api.client.identity.Identity.sign",
        "server.append": "api.client.transport.Server.append",
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(target, crash)
        with pytest.raises(KeyboardInterrupt):
            act(argument)
    with monkeypatch.context() as patch:
        patch.setattr(Server, "_send", _gone)
        with pytest.raises(ServerUnreachable):
            act(argument)
    if answer == "revoke_grant" and where in ("check_logged", "server.append"):
        with pytest.raises(VerificationFailed, match=r"consent\.revoked"):
            told.clinic.disclose(argument)  # what is about to be revoked shows nothing any more
    first = act(argument)
    assert act(argument) == first
    assert told.log_size() == size + 1
    if answer == "grant":
        told.clinic.disclose(first.index)
        assert len(insurer.collect(asked).facts) == 1


def _gone(*arguments: object, **options: object) -> Any:
    raise ServerUnreachable("gone")


def _grant_in_a_process(folder: Path, request: int, results: Any) -> None:
    with Clinic.open(folder) as clinic:
        held = clinic.grant(request)
        clinic.disclose(held.index)
        results.put(held.index)


def test_two_processes_grant_and_show_one_thing(told: Told, insurer: Consumer) -> None:
    asked = ask(told, insurer, told.exact(HIGH, 0.25), purpose="two at once")
    size, context = told.log_size(), multiprocessing.get_context("spawn")
    results = context.Queue()
    folder = told.clinic.session.folder
    processes = [context.Process(target=_grant_in_a_process, args=(folder, asked.index, results)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert results.get() == results.get()
    assert told.log_size() == size + 2
    assert len(insurer.collect(asked).facts) == 1


# -- deliveries -------------------------------------------------------------------------------------------------------


def test_a_delivery_is_read_back_and_nothing_else_is() -> None:
    packed = pack_delivery(b"s" * 1000, b"p" * 40_000, b"g" * 700)
    assert len(packed) % (1 << 14) == 0
    found = unpack_delivery(packed)
    assert (found.statement, found.proof, found.grant) == (b"s" * 1000, b"p" * 40_000, b"g" * 700)
    assert "ss" not in repr(found)
    long = packed[:22] + (1 << 31).to_bytes(4, "little") + packed[26:]
    for bad in (
        b"",
        packed[:-1],
        packed + b"\0",
        packed + bytes(1 << 14),
        packed[:-1] + b"\1",
        b"x" + packed[1:],
        long,
    ):
        with pytest.raises(DecodeError):
            unpack_delivery(bad)
    for parts in ((b"", b"p", b"g"), (b"s", b"p" * ((1 << 23) + 1), b"g")):
        with pytest.raises(UsageError):
            pack_delivery(*parts)


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SEALPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["sealproof", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code == code, (arguments, shown)
        return " ".join((shown.out + shown.err).split())

    return run


def test_the_commands_of_a_clinic(told: Told, insurer: Consumer, tmp_path: Path, shell: Any) -> None:
    folder = ("-f", told.clinic.session.folder)
    asked, path = ask(told, insurer, purpose="a claim"), tmp_path / "p.sealproof"
    out = shell("clinic", "requests", *folder)
    assert f"request {asked.index} of acme-life, open for 'a claim', about any prediction of risk 1" in out
    assert "is risk of record 'p-71' at least 0.40625 (a probability of at least 0.6001)?" in out
    assert "what is risk of record 'p-18', to within 0.015625?" in out
    rows = json.loads(shell("clinic", "requests", "--all", "--json", *folder))["requests"]
    (row,) = [row for row in rows if row["request"] == asked.index]
    assert (row["consumer"], row["state"], row["purpose"]) == ("acme-life", "open", "a claim")
    assert [question["record"] for question in row["questions"]] == [HIGH, LOW]
    out = shell("clinic", "grant", asked.index, "--only", HIGH, "--until", "2100-01-01T00:00:00Z", *folder)
    (held,) = told.clinic.grants()
    assert f"grant {held.index}, until 2100-01-01T00:00:00Z" in out
    assert f"granted in entry {held.index}" in shell("clinic", "requests", "--all", *folder)
    found = json.loads(shell("clinic", "disclose", held.index, "--save", path, "--json", *folder))
    assert found == {"grant": held.index, "saved": str(path), "delivered": True}
    assert len(verified(told, path, asked).facts) == 1
    out = shell("clinic", "revoke-grant", held.index, "--reason", "enough", *folder)
    assert f"grant {held.index} revoked" in out
    assert "consent.revoked" in shell("clinic", "disclose", held.index, *folder, code=1)
    second = ask(told, insurer, told.exact(IDS[0]), purpose="another claim")
    out = shell("clinic", "refuse", second.index, "--reason", "no-consent", *folder)
    assert f"request {second.index} refused (no-consent)" in out
    assert "enough" not in shell("clinic", "requests", *folder)


def test_a_shown_file_needs_no_server(told: Told, insurer: Consumer, tmp_path: Path) -> None:
    asked = ask(told, insurer, told.exact(HIGH), purpose="offline")
    held = told.clinic.grant(asked.index)
    path = told.clinic.disclose(held.index, path=tmp_path / "shown.sealproof")
    assert path is not None
    key = Verifier.parse(told.server.log_key)
    assert isinstance(verify_bundle(path, key, recipient_nonce=asked.document.nonce), VerifiedDisclosure)
    server = told.clinic.session.server
    online = verify_bundle(path, key, ledger=server, recipient_nonce=asked.document.nonce)
    assert isinstance(online, VerifiedDisclosure)
    told.clinic.revoke_grant(held.index)
    later = verify_bundle(path, key, ledger=server, recipient_nonce=asked.document.nonce)
    assert isinstance(later, VerifiedDisclosure)  # shown before, and stays shown; that it was revoked since is told
    assert later.consent is not None
    assert later.consent.revoked_since == (held.reference,)
    question = question_of(told.model, HIGH, kind="exact")
    assert later.consent.document.questions == (question,)
    shutil.rmtree(tmp_path, ignore_errors=True)
