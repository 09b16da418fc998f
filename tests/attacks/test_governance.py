"""A model passes for approved that too few hospitals approved, or not this one, or no longer.

The attacker may be the server, the model's owner, or one hospital; he logs what he likes, and brings to the contract
what he likes. Each attack is also run where the one check that stops it is missing, and succeeds there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from api import approval_entries
from api.approval_entries import Approval, ApprovalScope
from api.binding import Located
from api.client import audit_base
from api.client.audit import verify_bundle
from api.entries import ENTRY_DOMAIN, Model, Reference, decode_entry, sign_entry
from api.governance import Governance
from api.registry import Registry
from privacy import attestation as att
from privacy.errors import DecodeError, VerificationFailed
from tests.support import bundles, joint_bundles
from tests.support.bundles import ORIGIN, Actor
from tests.support.hospitals import (
    CHAIN,
    CONTRACT,
    GOVERNANCE,
    HOSPITALS,
    KEYS,
    ORDER,
    PARTS,
    STRANGER,
    FakeContract,
    approval,
    digest_without,
    key_of,
    private_key,
    signatures,
)

TWO = HOSPITALS[:2]


def elsewhere(part: str, model: Reference, weak: bool) -> Approval:
    """Two hospitals' signatures for another act, chain, contract, log or entry, presented as an approval of `model`."""
    scope = ApprovalScope(
        CHAIN + (part == "chain"),
        bytes(20) if part == "contract" else CONTRACT,
        "log.example/other" if part == "origin" else ORIGIN,
    )
    meant = Reference(
        model.index + (part == "index"), sha256(b"another model").digest() if part == "leaf" else model.leaf
    )
    act = approval_entries.WITHDRAWAL_DOMAIN if part == "act" else approval_entries.APPROVAL_DOMAIN
    digest = digest_without(part if weak else None)(scope, act, meant)
    return approval(model, ORIGIN, signatures=signatures(digest, TWO))


@dataclass
class Governed:
    """A story with approvals of every kind on its log, and a prediction that was proven under a head after them."""

    story: Any
    logged: dict[str, Located[Approval]]

    @property
    def model(self) -> Reference:
        reference: Reference = self.story.model.reference
        return reference

    def bundle(
        self,
        path: Path,
        name: str | None,
        *,
        attested: str | None = "the same",
        also: tuple[str, ...] = (),
        prediction: Any = None,
    ) -> Path:
        """The bundle with this approval in it; `attested` is the one that the attestation names."""
        story, world = self.story, self.story.world
        prediction = prediction or story.log()
        attested = name if attested == "the same" else attested
        changes = {"approval": None if attested is None else self.reference(attested)}
        envelope = story.attest(prediction, **changes)
        body = prediction.body
        named = [prediction.reference, body.records, body.model, *(actor.reference for actor in story.parties)]
        if hasattr(body, "key"):
            named.append(body.key)
        indices = {reference.index for reference in named} | {self.logged[n].reference.index for n in also}
        if name is not None:
            indices.add(self.logged[name].reference.index)
        assert world.log.size > max(indices)
        written: Path = story.bundle(path, prediction, envelope, indices=indices)
        return written

    def reference(self, name: str) -> att.LedgerReference:
        index = self.logged[name].reference.index
        return att.LedgerReference.to(index, self.story.world.log.entry(index))

    def verify(self, path: Path, governance: Governance | None = GOVERNANCE, **options: Any) -> Any:
        world = self.story.world
        return verify_bundle(path, world.verifier, cache=world.cache, governance=governance, **options)

    def refused(self, path: Path, check: str, governance: Governance | None = GOVERNANCE, **options: Any) -> str:
        with pytest.raises(VerificationFailed) as caught:
            self.verify(path, governance, **options)
        assert caught.value.check == check, caught.value
        return caught.value.detail


def forged_entry(
    world: bundles.World, author: Actor, body: Approval, change: Callable[[Any], None]
) -> Located[Approval]:
    """Log an approval whose JSON `change` alters, signed again by its author."""
    entry = json.loads(sign_entry(body, author.reference, author.private_key))
    change(entry["body"])
    entry["signature"] = ""
    unsigned = rfc8785.dumps({name: value for name, value in entry.items() if name != "signature"})
    entry["signature"] = base64.b64encode(author.private_key.sign(ENTRY_DOMAIN + unsigned)).decode()
    data = rfc8785.dumps(entry)
    return Located(Reference.to(world.log.append(data).index, data), body)


def second_spelling(body: dict[str, Any]) -> None:
    """The first hospital's signature in both of its spellings, and nobody else's."""
    first = body["signatures"][0]
    r, s = first["signature"][:64], int(first["signature"][64:], 16)
    body["signatures"] = [first, {"key": first["key"], "signature": f"{r}{ORDER - s:064x}"}]


def repeated(body: dict[str, Any]) -> None:
    body["signatures"] = [body["signatures"][0]] * 2


def other_model(story: Any) -> Located[Any]:
    if isinstance(story.model.body, Model):
        return story.world.append(story.owner, bundles.model_material(((0.05, 0.01, -0.9),), "9").body())
    return story.world.append(story.owner, joint_bundles.network_material("other", "9").body())


@pytest.fixture(scope="module", params=["ckks", "mpc"])
def governed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Governed:
    """Both schemes. The log belongs to the attacker: it holds what no honest server would have logged."""
    told: Any = {"ckks": bundles.tell, "mpc": joint_bundles.tell}[request.param]
    story = told(tmp_path_factory.mktemp("governed"))
    world, owner, model = story.world, story.owner, story.model.reference
    other = other_model(story)
    bodies = {
        "honest": approval(model, ORIGIN),
        "all": approval(model, ORIGIN, HOSPITALS),
        "one": approval(model, ORIGIN, HOSPITALS[:1]),
        "strangers": approval(model, ORIGIN, [STRANGER, private_key(105)]),
        "one-and-a-stranger": approval(model, ORIGIN, [HOSPITALS[0], STRANGER]),
        "other-model": approval(other.reference, ORIGIN),
        "relabelled-contract": approval(model, ORIGIN, governance=replace(GOVERNANCE, contract=bytes(20))),
        "relabelled-chain": approval(model, ORIGIN, governance=replace(GOVERNANCE, chain=CHAIN + 1)),
    }
    bodies |= {part: elsewhere(part, model, weak=False) for part in PARTS}
    bodies |= {f"weak-{part}": elsewhere(part, model, weak=True) for part in PARTS}
    logged = {name: world.append(owner, body) for name, body in bodies.items()}
    logged["by-clinic"] = world.append(story.clinic, bodies["honest"])
    logged["twice"] = forged_entry(world, owner, bodies["honest"], repeated)
    logged["both-spellings"] = forged_entry(world, owner, bodies["honest"], second_spelling)
    if request.param == "ckks":
        predicted: Any = bundles.predict(
            story.key_material, story.model_material, story.key, story.model, story.records, world.head
        )
    else:
        predicted = story.predict()
    story = replace(story, predicted=predicted)
    logged["late"] = world.append(owner, bodies["honest"])
    return Governed(story, logged)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


# -- the honest way ---------------------------------------------------------------------------------------------------


def test_an_approved_model_is_accepted(governed: Governed, path: Path) -> None:
    governed.bundle(path, "honest")
    found = governed.verify(path, contract=FakeContract())
    assert found.approval.body.model == governed.model
    (said,) = [check.sentence for check in found.checks if check.name == "approval"]
    assert "2 of 3 hospitals approved this model before the prediction, 2 were needed" in said
    assert said.endswith("In the contract 3 approve it now.")
    assert "Whose keys they are was not asked" in next(
        check.sentence for check in governed.verify(path, None).checks if check.name == "approval"
    )
    assert governed.verify(governed.bundle(path.with_name("all"), "all")).approval is not None


# -- a signature for something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_a_signature_counts_for_one_act_chain_contract_log_and_entry(
    governed: Governed, path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    governed.refused(governed.bundle(path, part), "approval.signature")
    weak = governed.bundle(path.with_name("weak"), f"weak-{part}")
    governed.refused(weak, "approval.signature")
    monkeypatch.setattr(ApprovalScope, "_digest", digest_without(part))
    assert governed.verify(weak).approval is not None, "without the part in the digest, the attack works"


def test_an_approval_of_another_model_is_no_approval_of_this_one(
    governed: Governed, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    governed.refused(governed.bundle(path, "other-model"), "approval.model")
    monkeypatch.setattr(audit_base, "check_approval", weak_check_approval)
    assert governed.verify(path).approval.body.model != governed.model


@pytest.mark.parametrize(("name", "check"), [("chain", "approval.chain"), ("contract", "approval.contract")])
def test_hospitals_approve_for_one_contract_on_one_chain(governed: Governed, path: Path, name: str, check: str) -> None:
    """An attacker's own contract, or the same address elsewhere: there, withdrawals never arrive."""
    governed.bundle(path, f"relabelled-{name}")
    governed.refused(path, check)
    lax = {"chain": replace(GOVERNANCE, chain=CHAIN + 1), "contract": replace(GOVERNANCE, contract=bytes(20))}[name]
    assert governed.verify(path, lax).approval is not None


# -- fewer hospitals than it seems ------------------------------------------------------------------------------------


def test_the_threshold_is_the_readers_and_not_the_entrys(
    governed: Governed, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert governed.logged["one"].body.threshold == 1
    governed.bundle(path, "one")
    assert "1 of the hospitals in the governance file, 2 are needed" in governed.refused(path, "approval.threshold")

    def believes_the_entry(self: Governance, body: Approval) -> tuple[bytes, ...]:
        signers = self.signers(body)
        assert len(signers) >= body.threshold
        return signers

    monkeypatch.setattr(Governance, "check", believes_the_entry)
    assert governed.verify(path).approval is not None


@pytest.mark.parametrize("name", ["strangers", "one-and-a-stranger"])
def test_keys_that_nobody_listed_do_not_count(
    governed: Governed, path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    governed.refused(governed.bundle(path, name), "approval.threshold")
    monkeypatch.setattr(Governance, "signers", lambda self, body: tuple(signed.key for signed in body.signatures))
    assert governed.verify(path).approval is not None


@pytest.mark.parametrize(("name", "reason"), [("twice", "the same"), ("both-spellings", "above n/2")])
def test_one_hospital_counts_once(
    governed: Governed, path: Path, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    governed.bundle(path, name)
    with pytest.raises(DecodeError, match=reason):
        governed.verify(path)
    # Even an entry that repeats itself does not persuade whoever counts hospitals and not signatures ...
    monkeypatch.setattr(approval_entries, "check_distinct", lambda keys: None)
    monkeypatch.setattr(approval_entries, "check_curve_signature", any_signature)
    governed.refused(path, "approval.threshold")
    # ... only whoever counts signatures.
    monkeypatch.setattr(Governance, "signers", lambda self, body: tuple(signed.key for signed in body.signatures))
    assert governed.verify(path).approval is not None


def any_signature(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def test_a_hospital_is_not_listed_under_its_key_and_the_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows d signs for -d, too: two keys, one hospital."""
    secret = HOSPITALS[0].private_numbers().private_value
    negative = key_of(private_key(ORDER - secret))
    assert negative != KEYS[0]
    with pytest.raises(ValueError, match="the negative of the other"):
        Governance(CHAIN, CONTRACT, 2, (KEYS[0], negative))
    monkeypatch.setattr("api.governance.check_distinct", lambda keys: None)
    monkeypatch.setattr(approval_entries, "check_distinct", lambda keys: None)
    lax = Governance(CHAIN, CONTRACT, 2, (KEYS[0], negative))
    model = Reference(3, bytes(32))
    assert len(lax.check(approval(model, ORIGIN, [HOSPITALS[0], private_key(ORDER - secret)]))) == 2


# -- at another time --------------------------------------------------------------------------------------------------


def weak_check_approval(
    found: Located[Approval],
    model: Reference,
    prediction: Reference,
    origin: str,
    governance: Governance,
    contract: Any,
) -> str:
    """Step 12 without its checks of model and order."""
    approval_entries.verify_approval(found.body, origin)
    governance.check(found.body)
    return ""


def test_an_approval_after_the_prediction_does_not_count(
    governed: Governed, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server predicts with an unapproved model and shows the approval that came later."""
    prediction = governed.story.log()
    governed.logged["after"] = governed.story.world.append(governed.story.owner, governed.logged["honest"].body)
    assert governed.logged["after"].reference.index > prediction.reference.index
    governed.bundle(path, "after", prediction=prediction)
    governed.refused(path, "head.stale")
    monkeypatch.setattr(audit_base.Audit, "_past_head", lambda self, *_: "")
    governed.refused(path, "ledger.order")
    monkeypatch.setattr(audit_base, "check_approval", weak_check_approval)
    assert governed.verify(path).approval is not None


def test_an_approval_that_came_while_the_prediction_was_computed_does_not_count(governed: Governed, path: Path) -> None:
    """It is older than the prediction's entry, and younger than the head under which the prediction was made."""
    prediction = governed.story.log()
    assert governed.logged["late"].reference.index < prediction.reference.index
    governed.refused(governed.bundle(path, "late", prediction=prediction), "head.stale")


def test_a_withdrawn_approval_is_told_by_the_contract(
    governed: Governed, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger still holds the approval, and cannot lose it: only the contract knows."""
    governed.bundle(path, "honest")
    contract = FakeContract()
    contract.known = {KEYS[0]: "withdrawn", KEYS[2]: "none"}
    assert governed.verify(path).approval is not None, "who does not ask is not told"
    assert "1 of the 2 approvals" in governed.refused(path, "approval.withdrawn", contract=contract)
    contract.known = {KEYS[0]: "none", KEYS[1]: "none"}
    governed.refused(path, "approval.not-relayed", contract=contract)
    contract.known = {KEYS[0]: "withdrawn"}
    assert governed.verify(path, contract=contract).approval is not None, "the other two are enough"


# -- no approval at all -----------------------------------------------------------------------------------------------


def test_a_prediction_that_names_no_approval_is_refused_by_whoever_wants_one(governed: Governed, path: Path) -> None:
    governed.bundle(path, None)
    assert governed.verify(path, None).approval is None
    governed.refused(path, "approval.missing")


def test_attestation_and_bundle_name_the_same_approval(
    governed: Governed, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A go-between adds an approval that the server did not look at, or takes away the one that it did."""
    governed.refused(governed.bundle(path, "honest", attested=None), "attestation.approval")
    governed.refused(governed.bundle(path, "all", attested="honest"), "attestation.approval")
    governed.refused(governed.bundle(path, None, attested="honest"), "approval.missing")
    governed.refused(path, "attestation.approval", governance=None)
    governed.refused(governed.bundle(path, "honest", also=("all",)), "entry.approval")


def test_an_approval_is_logged_by_an_owner_or_the_server(governed: Governed, path: Path) -> None:
    governed.refused(governed.bundle(path, "by-clinic"), "entry.role")


# -- what a server logs -----------------------------------------------------------------------------------------------


def registry_of(governed: Governed) -> Registry:
    """What an honest server knew when the attacker came."""
    log, registry = governed.story.world.log, Registry(ORIGIN)
    for entry in log.entries(0, min(found.reference.index for found in governed.logged.values())):
        registry.add(entry)
    return registry


def test_a_server_logs_no_approval_that_does_not_hold(governed: Governed) -> None:
    registry, world = registry_of(governed), governed.story.world
    checks = dict.fromkeys(PARTS, "approval.signature")
    checks |= {f"weak-{part}": "approval.signature" for part in PARTS} | {"by-clinic": "entry.role"}
    for name, check in checks.items():
        with pytest.raises(VerificationFailed) as caught:
            registry.check(world.log.entry(governed.logged[name].reference.index))
        assert caught.value.check == check, name
    for name in ("twice", "both-spellings"):
        with pytest.raises(DecodeError):
            registry.check(world.log.entry(governed.logged[name].reference.index))
    for name in ("honest", "one", "strangers"):  # whose keys they are is for readers
        registry.check(world.log.entry(governed.logged[name].reference.index))


def test_a_server_logs_approvals_of_models_only(governed: Governed) -> None:
    registry, story = registry_of(governed), governed.story
    for target in (story.records.entry.reference if hasattr(story.records, "entry") else story.records.reference,):
        entry = sign_entry(approval(target, ORIGIN), story.owner.reference, story.owner.private_key)
        with pytest.raises(VerificationFailed, match="only models and networks are"):
            registry.check(entry)
    wrong = Reference(governed.model.index, bytes(32))
    entry = sign_entry(approval(wrong, ORIGIN), story.owner.reference, story.owner.private_key)
    with pytest.raises(VerificationFailed, match="another leaf hash"):
        registry.check(entry)
    unborn = Reference(registry.size, sha256(b"x").digest())
    entry = sign_entry(approval(unborn, ORIGIN), story.owner.reference, story.owner.private_key)
    with pytest.raises(VerificationFailed, match="is not there"):
        registry.check(entry)
    assert decode_entry(entry).kind == "sealproof/approval/v1"
