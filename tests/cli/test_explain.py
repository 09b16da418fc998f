"""`sealproof explain`: what it says is what was verified, of all kinds of bundles, and nothing that was not."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from api.client.audit import verify_bundle
from api.client.explain import checks, soundness
from api.client.explain.document import Explanation, Quantity, Section, Sentence, Signer
from api.client.explain.facts import Reading
from api.client.explain.page import as_page
from api.client.explain.refused import explain_refused
from api.client.explain.text import WIDTH, as_text
from api.client.explain.verified import command, explain_verified
from api.client.prediction import VERIFIED
from api.client.shown import VerifiedDisclosure
from api.client.trust import TrustedLog, parse_trust
from api.entries import Revocation
from api.exposure import bits_of_groups, hidden_bits, joint_bits, network_bits
from ledger import Signer as LogSigner
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.note import Note
from privacy.attestation import JOINT_NOT_CLAIMED, NOT_CLAIMED
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed
from tests.support import bundles, disclosures, granted
from tests.support.disclosures import RECIPIENT
from tests.support.hospitals import GOVERNANCE, approval

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A verified bundle, as a reader found it who gave only the key of the log."""

    path: Path
    trusted: TrustedLog
    found: Any

    @property
    def prediction(self) -> Any:
        return self.found.prediction if isinstance(self.found, VerifiedDisclosure) else self.found

    def explain(self, found: Any = None, **reading: Any) -> Explanation:
        given = {"options": ("--log-key", "log.vkey"), "pinned": True, "trusted": self.trusted, **reading}
        return explain_verified(found or self.found, Reading(**given))


def case(path: Path, world: bundles.World, **more: Any) -> Case:
    trusted = TrustedLog(world.verifier)
    return Case(path, trusted, verify_bundle(path, [trusted], cache=world.cache, **more))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> granted.EncryptedStory:
    return granted.encrypted(tmp_path_factory.mktemp("encrypted"), granted.model_of_two())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, told: granted.EncryptedStory) -> dict[str, Case]:
    """One bundle of every kind."""
    folder = tmp_path_factory.mktemp("cases")
    world = told.story.world
    reached = told.steps[1][0] - 7
    questions = [granted.threshold("p-71", reached), granted.exact("p-40", 2), granted.exact("p-55", 1, 1, 0)]
    asked = granted.consent(world, told.story.clinic, told.prediction.reference, questions)
    shown = told.disclose(folder / "shown.sealproof", asked)
    found = {"ckks": case(told.verified.path, world), "ckks-shown": case(shown, world)}
    joint = granted.joint(folder)
    world = joint.story.world
    first = joint.story.bundle(folder / "joint.sealproof", joint.prediction, joint.envelope)
    old = joint.disclose(folder / "old.sealproof", joint.statement(1))
    wide = [granted.whole("p-18"), granted.exact("p-90")]
    unasked = granted.consent(world, joint.story.clinic, joint.prediction.reference, wide, consumer=None)
    new = granted.disclose_joint(joint, folder / "new.sealproof", unasked)
    return found | {"mpc": case(first, world), "mpc-old": case(old, world), "mpc-shown": case(new, world)}


KINDS = ("ckks", "ckks-shown", "mpc", "mpc-old", "mpc-shown")
SHOWN = ("ckks-shown", "mpc-old", "mpc-shown")


@pytest.fixture(params=KINDS)
def one(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture(params=SHOWN)
def shown(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def sentences(explanation: Explanation, name: str) -> list[str]:
    section = explanation.section(name)
    assert section is not None
    return [sentence.plain for sentence in section.sentences]


def quantities(explanation: Explanation, name: str = "numbers") -> dict[str, Quantity]:
    section = explanation.section(name)
    assert section is not None
    found = {quantity.name: quantity for quantity in section.quantities}
    assert len(found) == len(section.quantities), "two numbers have one name"
    return found


def everything(explanation: Explanation) -> str:
    return json.dumps(explanation.to_json()) + as_text(explanation) + as_page(explanation).decode()


# -- what is said is what was verified --------------------------------------------------------------------------------


def test_sections_stand_in_the_promised_order(one: Case) -> None:
    names = [section.name for section in one.explain().sections]
    assert names == ["in-short", "proved", "signed", "ledger", "numbers", "not-claimed", "weights", "repeat"]


def test_numbers_of_a_prediction_are_those_that_were_verified(one: Case) -> None:
    found, numbers, head = one.prediction, quantities(one.explain()), quantities(one.explain(), "ledger")
    body = found.prediction.body
    assert head["size"].exact == found.head.size
    assert head["root"].exact == found.head.root.hex() == head["root"].shown
    assert head["ledger"].exact == found.head.origin
    assert head["key of the ledger"].exact == str(one.trusted.verifier)
    assert head["head that the prediction names"].exact == body.checkpoint_size
    assert head["its root"].exact == body.checkpoint_root.hex()
    assert numbers["patients"].exact == found.count
    assert numbers["features of a record"].exact == found.records.body.d
    assert numbers["file"].exact == one.path.stat().st_size
    assert numbers["proofs of the prediction"].exact == sum(proof.size for proof in body.proofs)
    assert numbers["attested"].exact == found.issued_at
    assert numbers["grid"].exact == found.model.body.grid_bits
    assert numbers["parameter set"].exact == found.model.body.parameter_set
    assert numbers["verified here in"].exact == round(1000 * sum(check.seconds for check in one.found.checks))


@pytest.mark.parametrize("kind", ["ckks", "ckks-shown"])
def test_errors_and_exposure_of_encrypted_answers(cases: dict[str, Case], kind: str) -> None:
    found, numbers = cases[kind].prediction, quantities(cases[kind].explain())
    bound, model, d = found.prediction.body.error_bound, found.model.body, found.records.body.d
    assert numbers["error of the evaluation"].exact == f"{bound.error}/2^{bound.scale_bits}"
    shown = Fraction(numbers["error of the evaluation"].shown.split()[0])
    assert found.evaluation_error <= shown < found.evaluation_error * Fraction(11, 10), "rounded up, to two figures"
    (proof,) = found.prediction.body.proofs
    assert numbers["blur of proof 1"].exact == proof.blur_bits == found.statements[0].bounds.f
    released = bits_of_groups(found.records.body, model, [(_Group(proof), proof.outputs)])
    for place, output in enumerate(model.outputs):
        assert Fraction(numbers[f"error bound of {output.name!r}"].exact) == found.error_bound(place)
        row = numbers[f"exposure of {output.name!r}"]
        assert Fraction(row.exact) == released[place]
        told = re.fullmatch(r"at most ([\d,.]+) of ([\d,]+) bits", row.shown)
        assert told is not None and Fraction(told[1].replace(",", "")) >= released[place]
        assert int(told[2].replace(",", "")) == hidden_bits(model, d, place)


class _Group:
    """A proof of an entry, as exposure takes it."""

    def __init__(self, proof: Any) -> None:
        self.first_block, self.blocks, self.count = proof.first_block, proof.blocks, proof.count


@pytest.mark.parametrize("kind", ["mpc", "mpc-old", "mpc-shown"])
def test_errors_and_exposure_of_committed_answers(cases: dict[str, Case], kind: str) -> None:
    found, numbers = cases[kind].prediction, quantities(cases[kind].explain())
    assert numbers["error of the computation"].exact == 0
    assert Fraction(numbers["rounding error of every output"].exact) == found.network.error_bound
    assert numbers["largest answer that there can be"].exact == found.z_bound(0)
    assert numbers["scale of the answers"].exact == found.answer_scale_bits
    row = numbers["exposure of 'y0'"]
    assert Fraction(row.exact) == joint_bits(found.model.body, found.count)[0]
    assert f"of {network_bits(found.model.body):,} bits" in row.shown


def test_what_was_shown_is_told_with_its_values(shown: Case) -> None:
    explanation, facts = shown.explain(), shown.found.facts
    numbers, proved = quantities(explanation), sentences(explanation, "proved")
    for number, fact in enumerate(facts, start=1):
        name = f"shown answer {number}" if len(facts) > 1 else "shown answer"
        assert numbers[name].exact == fact.value
        assert fact.in_words in numbers[name].shown
        assert Fraction(numbers[f"{name}, error of the answer itself"].exact) == fact.error
        if fact.kind == "exact":
            assert numbers[f"{name}, tolerance"].exact == fact.tolerance
        assert any(f"of record {fact.record_id!r} {fact.in_words}" in sentence for sentence in proved)
    assert numbers["disclosed"].exact == shown.found.issued_at
    assert numbers["proof of the disclosure"].exact > 0


def test_the_committed_model_s_own_answer_is_bounded_with_the_error(cases: dict[str, Case]) -> None:
    found = cases["ckks-shown"]
    proved = sentences(found.explain(), "proved")
    for fact in found.found.facts:
        (sentence,) = [text for text in proved if fact.record_id in text and "committed model's own" in text]
        ends = [Fraction(word) for word in re.findall(r"-?\d+\.?\d*", sentence.split("own answer")[1].rstrip("."))]
        assert fact.low - fact.error - Fraction(1, 1000) < ends[0] <= fact.low - fact.error
        assert len(ends) == (1 if fact.kind == "threshold" else 2)
        if fact.high is not None:
            assert fact.high + fact.error <= ends[1] < fact.high + fact.error + Fraction(1, 1000)
    assert not any("own answer" in text for text in sentences(cases["mpc-shown"].explain(), "proved"))


def test_signers_are_named_with_their_entries(one: Case) -> None:
    section = one.explain().section("signed")
    assert section is not None
    signers = {signer.role: signer for signer in section.signers}
    found = one.prediction
    assert signers["model owner"].name == repr(found.owner.name)
    assert signers["model owner"].entries == (found.model.reference.index,)
    assert signers["server"].name == repr(found.server.name)
    assert signers["server"].entries == (found.prediction.reference.index,)
    assert signers["clinic"].name == repr(found.records.body.clinic)
    expected = {found.records.reference.index}
    expected |= {found.key.reference.index} if "key" in vars(found) else set()
    if isinstance(one.found, VerifiedDisclosure):
        expected.add(one.found.entry.reference.index)
        if one.found.consent is not None:
            expected.add(one.found.consent.grant.reference.index)
            if one.found.consent.request is not None:
                assert signers["consumer"].name == repr(one.found.consent.consumer.name)
                assert signers["consumer"].entries == (one.found.consent.request.reference.index,)
    assert set(signers["clinic"].entries) == expected
    assert signers["ledger"].fingerprint == str(one.trusted.verifier)
    assert ("consumer" in signers) == bool(getattr(getattr(one.found, "consent", None), "request", None))


# -- nothing is said that was not shown -------------------------------------------------------------------------------


def test_every_claim_belongs_to_a_step_that_was_taken(one: Case) -> None:
    steps = {check.name for check in one.found.checks}
    section = one.explain().section("proved")
    assert section is not None and section.sentences
    assert {sentence.step for sentence in section.sentences} <= steps
    for left_out in sorted(steps):
        remaining = tuple(check for check in one.found.checks if check.name != left_out)
        poorer = one.explain(replace(one.found, checks=remaining, made_by=VERIFIED))
        claims = poorer.section("proved")
        assert claims is not None
        assert left_out not in {sentence.step for sentence in claims.sentences}
        chances = [name for name in quantities(poorer) if name.startswith("chance of a false")]
        assert not (left_out == "proofs" and any("evaluation" in name or "joint" in name for name in chances))
        if left_out == "certificates":
            assert not sentences(poorer, "weights")


def test_without_a_connection_nothing_is_said_to_be_unrevoked(one: Case) -> None:
    offline = one.explain()
    assert not any("revoked" in text for text in sentences(offline, "proved"))
    assert any("revocations were not looked up" in text for text in sentences(offline, "not-claimed"))


def test_with_a_connection_revocations_are_told(cases: dict[str, Case], told: granted.EncryptedStory) -> None:
    world, path = told.story.world, cases["ckks-shown"].path
    online = case(path, world, ledger=world)
    explanation = online.explain(server=True)
    assert any("had been revoked before it" in text for text in sentences(explanation, "proved"))
    assert any("Neither grant nor request had been revoked" in text for text in sentences(explanation, "proved"))
    assert not any("were not looked up" in text for text in sentences(explanation, "not-claimed"))
    grant = online.found.consent.grant.reference
    world.append(told.story.clinic, Revocation(grant, "no longer"))
    later = case(path, world, ledger=world).explain(server=True)
    assert any(f"Entry {grant.index}, by which" in text for text in sentences(later, "ledger"))


@pytest.mark.parametrize("kind", ["ckks", "mpc", "mpc-old"])
def test_no_consent_is_claimed_where_there_is_none(cases: dict[str, Case], kind: str) -> None:
    explanation = cases[kind].explain()
    assert "consented on the ledger" not in everything(explanation)
    assert not any("consent" in text for text in sentences(explanation, "proved"))
    said = any("no consent is on the ledger" in text for text in sentences(explanation, "not-claimed"))
    assert said == (kind == "mpc-old")
    assert ("There is no consent to this on the ledger" in everything(explanation)) == (kind == "mpc-old")


@pytest.mark.parametrize("kind", ["ckks-shown", "mpc-shown"])
def test_consent_is_told_with_purpose_recipient_and_end(cases: dict[str, Case], kind: str) -> None:
    found = cases[kind].found
    (sentence,) = [s for s in sentences(cases[kind].explain(), "proved") if "consented on the ledger" in s]
    assert repr(found.consent.document.purpose) in sentence
    assert found.consent.document.until in sentence
    assert f"{len(found.facts)} of {len(found.facts)} question" in sentence
    to = "'health-insurer'" if kind == "ckks-shown" else "whoever chose the nonce"
    assert to in sentence
    assert any(
        "the consent on the ledger is the clinic's" in s for s in sentences(cases[kind].explain(), "not-claimed")
    )


def test_a_nonce_that_was_not_given_is_not_said_to_fit(shown: Case) -> None:
    without, given = shown.explain(), shown.explain(nonce=True)
    assert not any("made for you" in text for text in sentences(without, "proved"))
    assert any("made for you" in text for text in sentences(without, "not-claimed"))
    assert any("made for you" in text for text in sentences(given, "proved"))
    assert not any("made for you" in text for text in sentences(given, "not-claimed"))


def test_the_fixed_sentences_of_the_attestation_are_not_claimed(one: Case) -> None:
    fixed = NOT_CLAIMED if "key" in vars(one.prediction) else JOINT_NOT_CLAIMED
    told = sentences(one.explain(), "not-claimed")
    assert told[: len(fixed)] == list(fixed)
    for words in ("no policy with witnesses", "no approval is part", "newest head", "who their names say"):
        assert any(words in text for text in told)
    assert any("the encrypted values lie within" in text for text in told) == ("key" in vars(one.prediction))


def test_a_file_that_is_swapped_meanwhile_is_not_explained(cases: dict[str, Case], tmp_path: Path) -> None:
    path = tmp_path / "swapped.sealproof"
    path.write_bytes(cases["mpc"].path.read_bytes())
    found = replace(cases["mpc"].found, path=path, made_by=VERIFIED)
    path.write_bytes(cases["ckks"].path.read_bytes())
    with pytest.raises(VerificationFailed, match=r"entry\.reference"):
        cases["mpc"].explain(found)


# -- weights, witnesses, hospitals ------------------------------------------------------------------------------------


def test_statements_about_weights_are_told_and_others_are_not_made(cases: dict[str, Case]) -> None:
    told = sentences(cases["ckks"].explain(), "weights")
    assert "The weight of 'bmi' in 'y0' is zero." in told
    assert not any("'bmi' in 'y1'" in text for text in told)
    assert "Nothing is proved of single weights of a network." in sentences(cases["mpc"].explain(), "weights")[0]


def test_witnesses_date_the_head_and_the_use_of_records(tmp_path: Path) -> None:
    until = "2026-03-01T00:00:00Z"
    policy = bundles.Policy("any", until)
    story = bundles.tell(tmp_path, records_changes={"policy": policy}, signer=LogSigner.generate(bundles.ORIGIN))
    path, world = story.bundle(tmp_path / "plain.sealproof"), story.world
    assert any(f"set, {until}: that is the word" in t for t in sentences(case(path, world).explain(), "not-claimed"))
    witnesses = [Cosigner.generate(f"hospital-{i}.example/w") for i in range(2)]
    end = int(parse_timestamp(until).timestamp())
    note = world.log.checkpoint()
    text = Note.parse(note).text.encode()
    for times, in_time in (((end - 9, end - 5), True), ((end - 9, end + 5), False)):
        signed = with_cosignatures(note, [w.cosign(text, t) for w, t in zip(witnesses, times, strict=True)])
        members = {
            name: data.replace(note, signed) if name.endswith(".tlog-proof") else data
            for name, data in bundles.members(path).items()
        }
        cosigned = tmp_path / f"cosigned-{in_time}.sealproof"
        bundles.write_members(cosigned, members)
        lines = [f"log {world.verifier}", *(f"witness w{i} {w.verifier}" for i, w in enumerate(witnesses))]
        (trusted,) = parse_trust("\n".join([*lines, "group g all w0 w1", "quorum g", ""]))
        found = verify_bundle(cosigned, [trusted], cache=world.cache)
        explanation = Case(cosigned, trusted, found).explain()
        assert ("before the end" in " ".join(sentences(explanation, "proved"))) == in_time
        assert any(f"set, {until}: that is the word" in t for t in sentences(explanation, "not-claimed")) != in_time
        assert "'w0' and 'w1' did" in " ".join(sentences(explanation, "ledger"))
        section = explanation.section("signed")
        assert section is not None
        assert [s.name for s in section.signers if s.role == "witness"] == ["'w0'", "'w1'"]
        assert {s.fingerprint for s in section.signers} >= {str(w.verifier) for w in witnesses}
        assert not any("no policy with witnesses" in t for t in sentences(explanation, "not-claimed"))


def test_hospitals_are_said_to_have_approved_only_by_a_governance_file(tmp_path: Path) -> None:
    told = disclosures.tell(tmp_path)
    world, model = told.story.world, told.story.model.reference
    logged = world.append(told.story.owner, approval(model, bundles.ORIGIN))
    story = replace(told.story)
    story.predicted = story.predict(session=bytes(32))
    prediction = story.log()
    envelope = story.attest(prediction, approval=told.reference_of(logged.reference))
    named = (prediction.reference, model, story.records.reference, logged.reference)
    indices = {one.index for one in named} | {actor.reference.index for actor in story.parties}
    path = story.bundle(tmp_path / "approved.sealproof", prediction, envelope, indices=indices)
    bare = case(path, world).explain()
    assert not any("approved" in text for text in sentences(bare, "proved"))
    assert any("whose keys they are was not asked" in text for text in sentences(bare, "not-claimed"))
    governed = case(path, world, governance=GOVERNANCE).explain(governance=GOVERNANCE)
    assert any("2 of 3 hospitals of your governance file" in text for text in sentences(governed, "proved"))
    assert any("still approve" in text for text in sentences(governed, "not-claimed"))
    section = governed.section("signed")
    assert section is not None
    assert {s.entries for s in section.signers if s.role == "hospital"} == {(logged.reference.index,)}
    assert '"hospitals"' not in as_page(bare).decode() and ">hospitals<" in as_page(bare).decode()


def test_chances_are_added_up_from_the_errors_of_the_protocol(cases: dict[str, Case]) -> None:
    numbers = quantities(cases["ckks-shown"].explain())
    (statement,) = cases["ckks-shown"].prediction.statements
    bits = lambda error: -(-error.denominator // error.numerator)  # noqa: E731
    assert statement.instances == 2
    two = Fraction(2, 2**128)  # T1, and one more for two instances
    assert two < soundness.evaluation_error(statement) < two * Fraction(1_000_001, 1_000_000)
    assert numbers["chance of a false evaluation proof"].exact == 126
    assert numbers["chance of a false key certificate"].exact == 135
    assert numbers["chance of a false proof of the disclosure"].exact == 127
    assert quantities(cases["mpc"].explain())["chance of a false joint proof"].exact == 127
    assert bits(soundness.key_error(statement.params)) < 2**136
    assert soundness.power_of_two(Fraction(1, 2**9)) == 9
    assert soundness.power_of_two(Fraction(3, 2**10)) == 8


# -- text and page ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page's tags, which must be balanced, its attributes and its text."""

    VOID = frozenset({"meta", "rect", "path", "polygon", "circle"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.said += f" {data}"


def check_page(explanation: Explanation) -> Page:
    text = as_page(explanation).decode("utf-8")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a", "base", "form"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"href", "src", "srcset", "action", "data", "xlink:href"} & names
    assert not any(name.startswith("on") for name in names)
    assert not any("http" in (value or "") for name, value in page.attributes if name != "http-equiv")
    assert "url(" not in text and "@import" not in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert [v for n, v in page.attributes if n == "aria-labelledby" and v not in ids] == []
    return page


def test_pages_are_complete_and_fetch_nothing(one: Case) -> None:
    page = check_page(one.explain())
    assert page.tags.count("svg") == 1 and page.tags.count("h1") == 1
    assert ("lang", "en") in page.attributes and ("role", "img") in page.attributes
    words = " ".join(page.said.split())
    for section in one.explain().sections:
        assert section.title in words
        for sentence in section.sentences:
            assert " ".join(sentence.plain.split()) in words


def test_every_arrow_of_the_picture_is_told_in_words_and_boxes_do_not_overlap(one: Case) -> None:
    explanation = one.explain()
    assert explanation.picture is not None
    places = [(place.column, place.row) for place in explanation.picture.places]
    assert len(places) == len(set(places))
    titles = {place.key: place.title for place in explanation.picture.places}
    page = " ".join(check_page(explanation).said.split())
    for arrow in explanation.picture.arrows:
        assert f"{titles[arrow.start]} to {titles[arrow.end]}: {arrow.gives}" in page


def test_lines_fit_80_columns(one: Case) -> None:
    explanation = one.explain()
    commands = {command for section in explanation.sections for command in section.commands}
    for line in as_text(explanation).splitlines():
        assert len(line) <= WIDTH or line.strip() in commands, line


HOSTILE = "a\x1b[31m<script>alert(1)</script>\u202e\n- proved: 'x' & \"y\"\u0000"


def hostile() -> Explanation:
    section = Section(
        "in-short",
        HOSTILE,
        (Sentence(HOSTILE, HOSTILE, HOSTILE),),
        (Signer(HOSTILE, HOSTILE, HOSTILE, (1,), 2, HOSTILE),),
        (Quantity(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        (HOSTILE,),
    )
    return Explanation(HOSTILE, "refused", None, None, HOSTILE, (section, replace(section, name="other")))


def test_words_of_others_steer_neither_terminal_nor_page(cases: dict[str, Case]) -> None:
    found = cases["ckks-shown"].found
    facts = tuple(replace(fact, record_id=HOSTILE, output_name="<b>") for fact in found.facts)
    document = replace(found.consent.document, purpose="<script>'\" to steal")
    consent = replace(found.consent, document=document)
    lied = cases["ckks-shown"].explain(replace(found, facts=facts, consent=consent, made_by=VERIFIED))
    for explanation in (lied, hostile()):
        check_page(explanation)
        page, text = as_page(explanation).decode(), as_text(explanation)
        assert "<script" not in page and "<b>" not in page
        for shown in (page, text):
            assert all(c.isprintable() or c == "\n" for c in shown)
            assert "\x1b" not in shown and "\u202e" not in shown and "\x00" not in shown
    assert repr(HOSTILE) in " ".join(sentences(lied, "proved"))


# -- the command ------------------------------------------------------------------------------------------------------


Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The command line, with a home of its own, in this process."""
    monkeypatch.setenv("SEALPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        out, err = StringIO(), StringIO()
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr("sys.argv", ["sealproof", *arguments])
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            main()
        assert ended.value.code == code, (arguments, out.getvalue(), err.getvalue())
        return out.getvalue(), err.getvalue()

    yield call


def keyed(found: Case) -> tuple[str, ...]:
    return str(found.path), "--log-key", str(found.trusted.verifier)


def test_text_json_and_page_of_the_command(run: Run, cases: dict[str, Case]) -> None:
    told = keyed(cases["ckks-shown"])
    text, _ = run("explain", *told, "--nonce", RECIPIENT.hex())
    assert text.startswith("A disclosure from a prediction on encrypted records: verified\n")
    assert "It was made for you" in " ".join(text.split())
    found = json.loads(run("explain", *told, "--json")[0])
    assert (found["result"], found["kind"], found["scheme"]) == ("verified", "disclosure", "ckks")
    assert [check["name"] for check in found["checks"]] == [check.name for check in cases["ckks-shown"].found.checks]
    said, _ = run("explain", *told, "--html", "page.html")
    assert "page.html" in said and len(said.splitlines()) <= 3
    page = Path("page.html")
    Page(page.read_text(encoding="utf-8"))
    assert page.stat().st_mode & 0o777 == 0o600, "it names a record and what was shown of it"


def test_the_command_that_it_prints_verifies(run: Run, cases: dict[str, Case]) -> None:
    for name, more in (("mpc", ["--no-cache"]), ("mpc-old", ["--nonce", RECIPIENT.hex()])):
        found = json.loads(run("explain", *keyed(cases[name]), *more, "--json")[0])
        (printed,) = found["sections"][-1]["commands"]
        words = shlex.split(printed)
        assert words[:2] == ["sealproof", "verify"]
        run(*words[1:])


def test_a_log_that_is_trusted_on_this_machine_needs_no_key(run: Run, cases: dict[str, Case]) -> None:
    path, _, key = keyed(cases["mpc"])
    Path("log.vkey").write_text(key + "\n", encoding="utf-8")
    run("trust", "add", "log.vkey")
    text, _ = run("explain", path)
    assert "trusted on this machine" in " ".join(text.split())
    assert "Elsewhere add --log-key" in " ".join(text.split())


REFUSED: dict[str, tuple[str, list[str], int]] = {
    "log.untrusted": ("mpc", ["--log-key", str(LogSigner.generate("log.example/other").verifier)], 1),
    "disclosure.nonce": ("ckks-shown", ["--nonce", "ab" * 32], 1),
    "disclosure.missing": ("ckks", ["--nonce", "ab" * 32], 1),
    "approval.missing": ("mpc", ["--governance", "governance.json"], 1),
}


@pytest.mark.parametrize("check", REFUSED)
def test_refusals_are_those_of_verify_and_are_explained(run: Run, cases: dict[str, Case], check: str) -> None:
    name, options, code = REFUSED[check]
    Path("governance.json").write_bytes(GOVERNANCE.encode())
    path, *key = keyed(cases[name])
    given = [path, *([] if "--log-key" in options else key), *options]
    verified = json.loads(run("verify", *given, "--json", code=code)[0])
    explained = json.loads(run("explain", *given, "--json", code=code)[0])
    assert verified["check"] == explained["check"] == check
    assert verified["message"] == explained["message"]
    assert (verified["result"], verified["bundle"]) == (explained["result"], explained["bundle"])
    text = " ".join(run("explain", *given, code=code)[0].split())
    refusal = checks.refusal_of(check)
    assert refusal.guards in text and refusal.advice in text
    assert "What is proved" not in text and "consented" not in text
    run("explain", *given, "--html", "refused.html", code=code)
    assert refusal.advice.split("'")[0] in " ".join(Page(Path("refused.html").read_text()).said.split())


def test_a_damaged_and_an_absent_file(run: Run, cases: dict[str, Case]) -> None:
    path, *key = keyed(cases["mpc"])
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path("damaged.sealproof").write_bytes(data)
    Path("text.sealproof").write_text("no bundle", encoding="utf-8")
    for name in ("damaged", "text", "absent"):
        given = [f"{name}.sealproof", *key]
        verified = json.loads(run("verify", *given, "--json", code=2)[0])
        explained = json.loads(run("explain", *given, "--json", code=2)[0])
        assert (explained["check"], explained["message"]) == (verified["check"], verified["message"])
        text = " ".join(run("explain", *given, code=2)[0].split())
        assert checks.refusal_of(verified["check"]).advice in text


def test_wrong_usage_ends_as_in_verify(run: Run, cases: dict[str, Case]) -> None:
    for options in (["--backend", "none"], ["--nonce", "xy"], ["--governance", "absent.json"]):
        run("explain", *keyed(cases["mpc"]), *options, code=2)


def test_steps_before_the_refusal_are_named_and_the_failed_one_is_not(run: Run, cases: dict[str, Case]) -> None:
    found = json.loads(run("explain", *keyed(cases["ckks-shown"]), "--nonce", "ab" * 32, "--json", code=1)[0])
    (passed,) = [section for section in found["sections"] if section["name"] == "passed"]
    said = passed["sentences"][0]["plain"]
    assert "bundle, log, entries" in said and "proofs" in said
    assert "disclosure" not in said.split(". That")[0]


# -- the table of checks ----------------------------------------------------------------------------------------------


def literals(package: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        if path != Path(checks.__file__):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def test_every_refusal_that_is_explained_exists() -> None:
    known = literals("api") | literals("ledger") | literals("privacy")
    composed = {"consent.author"}
    for name in checks.REFUSALS:
        kind, dot, _ = name.partition(".")
        assert kind in checks.MEANINGS, name
        if dot:
            assert name in known | composed, name
    assert checks.refusal_of("no-such.check").because == "claim"
    assert checks.refusal_of("disclosure.answer") is checks.REFUSALS["disclosure"]
    assert checks.refusal_of("disclosure.nonce") is not checks.REFUSALS["disclosure"]


def test_a_chain_that_does_not_answer_is_no_refusal() -> None:
    told = explain_refused("b", "unreachable", "chain.unavailable", "no answer", ["bundle", "log"], Reading((), True))
    assert "did not answer" in as_text(told)
    assert "Nothing was found to be false" in " ".join(as_text(told).split())
    assert command("a b.sealproof", Reading(("--log-key", "log.vkey"), True)) == (
        "sealproof verify 'a b.sealproof' --log-key log.vkey"
    )
