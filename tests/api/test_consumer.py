"""A consumer asks, is answered, and believes nothing before it is proven: with the real service and a real clinic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.client import identity
from api.client.answered import check_answers, not_granted, unanswered
from api.client.asked import AskedRequest
from api.client.clinic import Clinic
from api.client.consents import HeldGrant
from api.client.consumer import Consumer
from api.client.prediction import VERIFIED
from api.client.questions import question_of
from api.client.shown import VerifiedDisclosure
from api.client.transport import Server, ServerError, ServerUnreachable
from api.consent import RequestDocument
from api.entries import Request, Revocation, decode_entry
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.linear import LinearModel
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.consumers import PURPOSE, Story, predict, sentences, tell
from tests.support.pairs import IDS, pair_of
from tests.support.service import listening, running


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("consumer")
    with running(folder / "server", requests_per_minute=100_000) as server:
        yield tell(server, folder)


@pytest.fixture(scope="module")
def shown(told: Story) -> tuple[AskedRequest, HeldGrant]:
    """A request that was granted and answered: two patients."""
    return told.shown(*told.patients(2), kind="exact", tolerance=0.25)


def crash(*arguments: object, **options: object) -> Any:
    raise KeyboardInterrupt


# -- who asks ---------------------------------------------------------------------------------------------------------


def test_a_consumer_is_registered_with_a_mailbox_and_opens_its_folder_again(told: Story) -> None:
    consumer = told.consumer
    again = Consumer.open(consumer.session.folder, client=told.server.client)
    assert (again.name, again.session.identity.party) == (consumer.name, consumer.session.identity.party)
    body = consumer.session.fetch(consumer.session.identity.party.index)[1].body
    assert (body.role, body.name) == ("consumer", "acme-life")
    assert body.mailbox == consumer.session.identity.mailbox.public_key().public_bytes_raw()
    with pytest.raises(UsageError, match="belongs to the consumer 'acme-life'"):
        Clinic.open(consumer.session.folder, client=told.server.client)
    with pytest.raises(UsageError, match="belongs to the clinic"):
        Consumer.open(told.clinic.session.folder, client=told.server.client)
    with pytest.raises(UsageError, match="make one with init"):
        Consumer.open(consumer.session.folder / "elsewhere")


def test_what_is_kept_is_private(told: Story, shown: tuple[AskedRequest, HeldGrant], tmp_path: Path) -> None:
    asked, _ = shown
    told.consumer.collect(asked)
    told.consumer.collect(asked, tmp_path / "shown.sealproof")
    kept = [tmp_path / "shown.sealproof", *told.consumer.session.folder.rglob("*")]
    assert len(kept) > 10
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path
    assert not list((told.consumer.session.folder / "received").glob(".*"))


# -- asking -----------------------------------------------------------------------------------------------------------


def test_the_ledger_and_the_server_learn_that_it_was_asked_and_not_what(
    told: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    honest = Server._send

    def send(server: Server, method: str, path: str, limit: int, **options: Any) -> bytes:
        sent.append(path.encode() + (options.get("body") or b""))
        return honest(server, method, path, limit, **options)

    monkeypatch.setattr(Server, "_send", send)
    question = told.question("patient-without-records")
    asked = told.consumer.request(told.clinic.name, [question], purpose="a rare purpose", model=told.model)
    entry = decode_entry(told.consumer.session.server.entry(asked.index))
    assert isinstance(entry.body, Request)
    assert entry.author == told.consumer.session.identity.party
    assert entry.body.document == asked.document.digest
    everything = b"".join(sent)
    for secret in (b"patient-without", b"rare purpose", asked.document.nonce, asked.document.nonce.hex().encode()):
        assert secret not in everything
    (found,) = [request for request in told.clinic.incoming() if request.index == asked.index]
    assert found.document == asked.document
    assert (asked.document.purpose, asked.document.questions) == ("a rare purpose", (question,))


def test_the_same_request_is_made_once_while_nobody_has_answered(told: Story, tmp_path: Path) -> None:
    (record,) = told.patients()
    asked, size = told.ask(record), told.log_size
    assert told.ask(record) == asked
    again = Consumer.open(told.consumer.session.folder, client=told.server.client)
    assert told.ask(record, consumer=again) == asked
    assert told.log_size == size
    told.clinic.refuse(asked.index, "declined")
    another = told.ask(record)
    assert another.index != asked.index
    assert another.document.nonce != asked.document.nonce
    assert replace(another.document, nonce=asked.document.nonce) == asked.document
    told.consumer.withdraw(another)
    assert told.ask(record).index not in (asked.index, another.index)


CRASHES = (
    "api.client.consumer.seal",
    "api.client.transport.Server.put_blob",
    "api.client.session.Session.log_once",
    "api.client.transport.Server.append",
    "api.client.session.Session.check_logged",
)


@pytest.mark.parametrize("where", CRASHES, ids=[where.rpartition(".")[2] for where in CRASHES])
def test_after_a_crash_the_request_that_was_kept_is_logged_once(told: Story, where: str) -> None:
    (record,) = told.patients()
    folder, size = told.consumer.session.folder / "asked", told.log_size
    before = set(folder.glob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, crash)
        with pytest.raises(KeyboardInterrupt):
            told.ask(record)
    (kept,) = set(folder.glob("*")) - before
    document = RequestDocument.decode((kept / "document.json").read_bytes())
    asked = told.ask(record)
    assert asked.document == document
    assert asked.reference.index == size
    assert told.log_size == size + 1


def test_without_the_server_nothing_is_kept(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object, **options: object) -> Any:
        raise ServerUnreachable("gone")

    before = list((told.consumer.session.folder / "asked").glob("*"))
    monkeypatch.setattr(Server, "checkpoint", gone)
    with pytest.raises(ServerError):
        told.ask("p0")
    assert list((told.consumer.session.folder / "asked").glob("*")) == before


def _odd() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"clinic": "nobody"}, "no party 'nobody'; it has the clinics 'st-anna'"),
        ({"clinic": "heart-lab"}, "no clinic but registered as owner"),
        ({"clinic": "acme-life"}, "only clinics are asked"),
        ({"clinic": 2}, "entry 2 is no party"),
        ({"clinic": 10**9}, "is no party"),
        ({"questions": []}, "1 to 256 questions, not 0"),
        ({"purpose": "  "}, "what the answers are for"),
        ({"purpose": "x" * 5000}, "purpose"),
        ({"model": None}, "which model is asked about"),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"model": 1}, "no model"),
        ({"records": 2}, "no records entry"),
        ({"records": 10**9}, "no records entry"),
        ({"prediction": 2, "model": None}, "no prediction"),
        ({"prediction": 10**9, "model": None}, "no prediction"),
        ({"prediction": "made", "records": 4}, "leave records out"),
    ]


@pytest.mark.parametrize(("options", "words"), _odd(), ids=lambda value: str(value)[:40])
def test_what_cannot_be_asked_is_told_in_words_and_nothing_is_sent(
    told: Story, options: dict[str, Any], words: str
) -> None:
    size, kept = told.log_size, list((told.consumer.session.folder / "asked").glob("*"))
    given: dict[str, Any] = {"clinic": "st-anna", "questions": [told.question("p0")], "model": "heart", **options}
    if given.get("prediction") == "made":
        given["prediction"] = told.clinic.open_bundle(told.bundle).verified.prediction.reference.index
    given = {"purpose": PURPOSE, **given}
    with pytest.raises(UsageError, match=words):
        told.consumer.request(given.pop("clinic"), given.pop("questions"), **given)
    assert told.log_size == size
    assert list((told.consumer.session.folder / "asked").glob("*")) == kept


def test_two_questions_of_a_kind_about_one_answer_are_not_asked(told: Story) -> None:
    """They would bracket it."""
    questions = [told.question("p0", kind="threshold", threshold=p) for p in (0.5, 0.6)]
    with pytest.raises(UsageError, match="two questions of a kind"):
        told.consumer.request("st-anna", questions, purpose=PURPOSE, model="heart")
    many = [told.question(f"x{number}") for number in range(257)]
    with pytest.raises(UsageError, match="divide them"):
        told.consumer.request("st-anna", many, purpose=PURPOSE, model="heart")


def test_a_request_may_be_about_one_prediction_or_one_cohort(told: Story, tmp_path: Path) -> None:
    verified = told.clinic.open_bundle(told.bundle).verified
    one, other = told.patients(2)
    made = verified.prediction.reference.index
    asked = told.consumer.request(told.clinic.name, [told.question(one)], purpose=PURPOSE, prediction=made)
    assert asked.document.scope.prediction == verified.prediction.reference
    told.clinic.disclose(told.clinic.grant(asked.index).index, told.bundle)
    assert told.consumer.collect(asked, tmp_path / "one.sealproof").prediction.prediction.reference.index == made
    records = told.records.index
    asked = told.consumer.request(
        told.clinic.name, [told.question(other)], purpose=PURPOSE, model="heart 1", records=records
    )
    assert asked.document.scope.records == told.records.reference


def test_a_clinic_without_a_mailbox_is_handed_the_request(
    told: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older releases registered them."""
    monkeypatch.setattr(identity, "_WITH_MAILBOX", frozenset())
    server = told.server
    old = Clinic.init(tmp_path / "old", server.url, "st-old", log_key=server.log_key, ckks=False, client=server.client)
    monkeypatch.undo()
    size, question = told.log_size, told.question("p0")
    with pytest.raises(UsageError, match="no mailbox, it was registered by an older release"):
        told.consumer.request("st-old", [question], purpose=PURPOSE, model=told.model)
    assert told.log_size == size
    path = tmp_path / "request.json"
    asked = told.consumer.request("st-old", [question], purpose=PURPOSE, model=told.model, save=path)
    assert RequestDocument.decode(path.read_bytes()) == asked.document
    body = decode_entry(old.session.server.entry(asked.index)).body
    assert isinstance(body, Request)
    assert body.box is None
    (found,) = old.incoming()
    assert found.document is None


def test_a_withdrawn_model_is_not_asked_about(told: Story) -> None:
    model = told.owner.publish(replace(_MOOD, name="fad"), version="1")
    told.owner.revoke(model, "no good")
    question = question_of(model, "p0", kind="exact", versus=1)
    with pytest.raises(UsageError, match="was withdrawn by ledger entry"):
        told.consumer.request("st-anna", [question], purpose=PURPOSE, model=model)


# -- what came of it --------------------------------------------------------------------------------------------------


def test_requests_and_what_came_of_them(told: Story, tmp_path: Path) -> None:
    consumer = told.another(tmp_path / "watcher", "watcher")
    assert consumer.requests() == []
    ones = told.patients(5)
    asked = [told.ask(record, consumer=consumer) for record in ones]
    told.clinic.refuse(asked[1].index, "no-consent")
    held = told.clinic.grant(asked[2].index, until=timedelta(days=3))
    shown = told.clinic.grant(asked[3].index)
    told.clinic.disclose(shown.index, told.bundle)
    told.clinic.revoke_grant(shown.index)
    consumer.withdraw(asked[4])
    states = consumer.requests()
    assert [state.asked for state in states] == asked
    assert [state.state for state in states] == ["open", "refused", "granted", "granted", "withdrawn"]
    assert {state.clinic.name for state in states} == {"st-anna"}
    assert states[1].refusal == "no-consent"
    (grant,) = states[2].grants
    assert (grant.grant.reference, grant.revoked, grant.disclosures) == (held.reference, False, ())
    assert grant.grant.body.until == held.document.until
    (grant,) = states[3].grants
    assert grant.revoked
    assert len(grant.disclosures) == 1
    for number, words in (
        (0, "has not answered the request"),
        (1, "'st-anna' has refused the request in entry .*: no-consent"),
        (2, "has granted the request .* but has shown nothing yet"),
        (4, "was withdrawn"),
    ):
        with pytest.raises(UsageError, match=words):
            consumer.collect(asked[number], tmp_path / "nothing.sealproof")
    # What was shown before the grant was revoked stays true, and its revocation is told.
    found = consumer.collect(asked[3], tmp_path / "shown.sealproof")
    assert found.consent is not None
    assert [one.index for one in found.consent.revoked_since] == [shown.index]
    assert not (tmp_path / "nothing.sealproof").exists()


def test_a_withdrawn_request_is_withdrawn_once_and_answered_by_nobody(told: Story) -> None:
    asked = told.ask(*told.patients())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.client.session.Session.check_logged", crash)
        with pytest.raises(KeyboardInterrupt):
            told.consumer.withdraw(asked, "too dear")
    size = told.log_size
    gone = told.consumer.withdraw(asked.index)
    assert told.consumer.withdraw(asked, "another reason") == gone
    assert told.log_size == size == gone.index + 1
    body = decode_entry(told.consumer.session.server.entry(gone.index)).body
    assert body == Revocation(asked.reference, "too dear")
    with pytest.raises(UsageError, match="was withdrawn by 'acme-life'"):
        told.clinic.grant(asked.index)


def test_only_ones_own_requests_have_a_state(told: Story, tmp_path: Path) -> None:
    asked = told.ask(*told.patients())
    stranger = told.another(tmp_path / "stranger", "stranger")
    with pytest.raises(UsageError, match="no request of this consumer; it has none yet"):
        stranger.collect(asked.index)
    with pytest.raises(UsageError, match=f"entry 0 is no request of this consumer; it has .*{asked.index}"):
        told.consumer.withdraw(0)


# -- believing --------------------------------------------------------------------------------------------------------


def test_collected_verified_and_the_same_however_it_came(told: Story, tmp_path: Path) -> None:
    (record,) = told.patients()
    asked, held = told.shown(record)
    path = tmp_path / "shown.sealproof"
    found = told.consumer.collect(asked, path)
    assert sentences(found) == [f"risk of record '{record}' is at least 0.40625"]
    assert found.clinic.name == "st-anna"
    assert found.consent is not None
    assert found.consent.grant.reference == held.reference
    assert found.consent.document.purpose == PURPOSE
    assert unanswered(found, asked) == not_granted(found, asked) == ()
    by_hand = told.clinic.disclose(held.index, told.bundle, tmp_path / "by-hand.sealproof")
    assert by_hand is not None
    for file in (path, by_hand):
        for offline in (False, True):
            again = told.consumer.verify(file, offline=offline)
            assert (again.facts, again.entry, again.recipient_nonce) == (found.facts, found.entry, asked.document.nonce)
            assert told.consumer.asked_in(again) == asked
    size = told.log_size
    assert told.consumer.collect(asked.index).facts == found.facts
    assert (told.consumer.session.folder / "received" / f"disclosure-{found.entry.reference.index}.sealproof").exists()
    assert told.log_size == size


def test_of_several_disclosures_one_is_chosen(told: Story, tmp_path: Path) -> None:
    ones = told.patients(2)
    asked, held = told.granted(*ones)
    for record in ones:
        told.clinic.disclose(held.index, told.bundle, records=[record])
    (grant,) = told.consumer.state(asked).grants
    indices = [shown.reference.index for shown in grant.disclosures]
    assert len(indices) == 2
    with pytest.raises(UsageError, match=f"several disclosures.*{indices[0]}, {indices[1]}"):
        told.consumer.collect(asked, tmp_path / "shown.sealproof")
    for index, record in zip(indices, ones, strict=True):
        found = told.consumer.collect(asked, tmp_path / f"{index}.sealproof", disclosure=index)
        assert [fact.record_id for fact in found.facts] == [record]
        assert [question.record for question in unanswered(found, asked)] == [one for one in ones if one != record]
    with pytest.raises(UsageError, match="entry 1 is no disclosure for the request"):
        told.consumer.collect(asked, disclosure=1)


def test_many_patients_in_one_request(told: Story, tmp_path: Path) -> None:
    ones = told.patients(12)
    asked, _ = told.shown(*ones, kind="exact", tolerance=0.25)
    found = told.consumer.collect(asked, tmp_path / "shown.sealproof")
    assert [fact.record_id for fact in found.facts] == ones
    assert {fact.tolerance for fact in found.facts} == {16}


_MOOD = LinearModel(
    "mood",
    np.array([[0.01, 0.0, 0.2], [0.0, 0.02, 0.1], [0.0, 0.0, 0.0]]),
    np.array([0.5, -0.5, 0.0]),
    ("calm", "merry", "sad"),
    "softmax",
    SCHEMA,
)


def test_of_a_softmax_a_difference_is_asked_and_shown(told: Story, tmp_path: Path) -> None:
    model = told.owner.publish(_MOOD, version="1")
    records = told.clinic.submit(SCHEMA.cohort(PATIENTS, IDS), model)
    bundle = predict(told.clinic, records, model, tmp_path / "mood.sealproof")
    raw = _MOOD.predict_raw(PATIENTS)[0]
    likely = float(np.exp(raw[0] - raw[2]))
    question = question_of(model, IDS[0], kind="threshold", odds=likely / 1.1, output="calm", versus="sad")
    asked = told.consumer.request("st-anna", [question], purpose=PURPOSE, model=model)
    told.clinic.disclose(told.clinic.grant(asked.index).index, bundle)
    found = told.consumer.collect(asked, tmp_path / "shown.sealproof")
    (fact,) = found.facts
    assert (fact.output_name, fact.versus_name, fact.value) == ("calm", "sad", question.value)
    assert fact.sentence.startswith(f"calm minus sad of record '{IDS[0]}' is at least ")


def test_committed_answers_are_asked_for_whole(tmp_path: Path) -> None:
    """Of multi-party computation: the same words, the same folder, another scheme."""
    with listening(tmp_path / "server") as server, pair_of(server, tmp_path) as pair:
        ended = pair.session()
        assert ended.errors == {"A": None, "B": None}
        bundle = pair.clinic.fetch(ended.request, timeout=60)
        with Consumer.init(tmp_path / "consumer", server.url, "acme", log_key=server.log_key) as consumer:
            questions = [question_of(pair.model, IDS[1], kind="open"), question_of(pair.model, IDS[2], kind="exact")]
            asked = consumer.request(pair.clinic.name, questions, purpose=PURPOSE, model=pair.model)
            pair.clinic.disclose(pair.clinic.grant(asked.index).index, bundle)
            found = consumer.collect(asked, tmp_path / "shown.sealproof")
            assert [fact.kind for fact in found.facts] == ["open", "exact"]
            assert found.facts[0].sentence.endswith("exactly")
            assert _without_libraries(consumer, tmp_path / "shown.sealproof", tmp_path) == [
                fact.sentence for fact in found.facts
            ]


def test_what_is_for_nobody_here_is_not_believed(
    told: Story, shown: tuple[AskedRequest, HeldGrant], tmp_path: Path, honest_bundle: Path, joint_bundle: Path
) -> None:
    asked, _ = shown
    path = tmp_path / "shown.sealproof"
    told.consumer.collect(asked, path)
    stranger = told.another(tmp_path / "other", "other-life")
    with pytest.raises(UsageError, match=r"made for no request of this folder.*sealproof verify --nonce"):
        stranger.verify(path)
    for bundle in (told.bundle, honest_bundle, joint_bundle):
        with pytest.raises(UsageError, match="shows nobody an answer"):
            told.consumer.verify(bundle)
    with pytest.raises(UsageError, match="no request of this folder"):
        told.consumer.verify(Path("tests/frozen/v1-mpc/threshold-disclosure.sealproof"))
    (tmp_path / "noise").write_bytes(os.urandom(5000))
    with pytest.raises(DecodeError):
        told.consumer.verify(tmp_path / "noise")
    with pytest.raises(OSError, match="absent"):
        told.consumer.verify(tmp_path / "absent")


def test_a_disclosure_for_another_is_recognised_as_such_in_every_part(
    told: Story, shown: tuple[AskedRequest, HeldGrant], tmp_path: Path
) -> None:
    """The last check alone, on a verified disclosure of which one thing is another's."""
    asked, _ = shown
    found = told.consumer.collect(asked, tmp_path / "shown.sealproof")
    clinic, consent = found.clinic, found.consent
    assert consent is not None
    check_answers(found, asked, clinic)

    def with_(**changes: Any) -> VerifiedDisclosure:
        return replace(found, **changes, made_by=VERIFIED)

    first, second = found.facts
    elsewhere = replace(asked.document.scope, model=told.records.reference)
    for lie, to, check in (
        (with_(recipient_nonce=bytes(32)), asked, "disclosure.nonce"),
        (with_(consent=None), asked, "request.consent"),
        (with_(consent=replace(consent, request=None)), asked, "request.consent"),
        (
            with_(consent=replace(consent, document=replace(consent.document, request=bytes(32)))),
            asked,
            "request.consent",
        ),
        (found, replace(asked, reference=told.model.reference), "request.consent"),
        (with_(clinic=replace(clinic, name="st-berta")), asked, "request.addressee"),
        (with_(facts=(replace(first, tolerance=17), second)), asked, "request.question"),
        (with_(facts=(first, replace(second, record_id="p-x"))), asked, "request.question"),
        (with_(facts=(replace(first, kind="threshold", tolerance=0), second)), asked, "request.question"),
        (with_(facts=(first, first)), asked, "request.answers"),
    ):
        with pytest.raises(VerificationFailed) as refused:
            check_answers(lie, to, clinic)
        assert refused.value.check == check
    # The scope is part of the document, whose digest the grant names: only with that changed, too, is it reached.
    other = replace(asked, document=replace(asked.document, scope=elsewhere))
    lie = with_(consent=replace(consent, document=replace(consent.document, request=other.document.digest)))
    with pytest.raises(VerificationFailed, match=r"request\.scope"):
        check_answers(lie, other, clinic)


# -- without the libraries of the others ------------------------------------------------------------------------------

BLOCKED = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "starlette", "uvicorn", "matplotlib")


def _without_libraries(consumer: Consumer, path: Path, folder: Path) -> list[str]:
    """What `consumer verify` says in a process that has what `pip install .` brings and nothing more."""
    arguments = ["sealproof", "consumer", "verify", str(path), "--folder", str(consumer.session.folder), "--json"]
    program = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
sys.argv = {arguments!r}
from api.cli.main import main
try:
    main()
finally:
    assert not any(name.partition(".")[0] in {BLOCKED!r} and module for name, module in sys.modules.items())
"""
    environment = {**os.environ, "SEALPROOF_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return [fact["says"] for fact in json.loads(done.stdout)["facts"]]
