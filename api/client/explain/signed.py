"""Who signed what, and on which state of which ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.binding import Located
from api.client.explain.document import Quantity, Section, Sentence, Signer
from api.client.explain.facts import Facts, fingerprint, listed, many
from api.client.times import told
from ledger.trust_policy import WitnessedHead

__all__ = ["ledger_head", "signed"]


def signed(facts: Facts) -> Section:
    """The section of signers."""
    sentences = [
        Sentence(
            "A signature shows who says something, not that it is true. Each of these was checked against the key that "
            "its party had registered in the ledger before.",
            "Ed25519 signatures of entries",
            "entries",
        )
    ]
    signers = [_party(facts, "clinic", _clinic_said(facts), _clinic_entries(facts))]
    signers += [
        _party(facts, "model owner", "this is my model, committed and certified", (facts.prediction.model,)),
        _party(
            facts,
            "server",
            f"these are the answers and their proofs; attested on {facts.prediction.issued_at}, by its own clock",
            (facts.prediction.prediction,),
        ),
        *_consumer(facts),
        *_approval(facts),
        _log(facts),
        *_witnesses(facts),
    ]
    return Section("signed", "Who signed what", tuple(sentences), tuple(signers))


def ledger_head(facts: Facts) -> Section:
    """The section of the ledger head."""
    head, witnessed = facts.head, facts.witnessed
    sentences = [
        Sentence(
            f"All of this was verified on the ledger {head.origin!r} in the state of {head.size:,} entries: its head, "
            "the short summary that its key signed and that every entry is bound to.",
            "C2SP tlog-checkpoint, RFC 6962 Merkle tree",
            "log",
        ),
        Sentence(_when(facts, witnessed)),
        Sentence(
            "What would show a fork: somebody who has a head of the same size with another root, or a head of another "
            "size that no consistency proof ties to this one. The former, with this file, convicts whoever holds the "
            "ledger's key. So compare size and root with other readers."
        ),
    ]
    sentences += [Sentence(anchor.sentence, "compared with a contract on a chain") for anchor in facts.reading.anchors]
    sentences += _revoked(facts)
    body = facts.prediction.prediction.body
    quantities = (
        Quantity("ledger", repr(head.origin), head.origin),
        Quantity("size", many(head.size, "entry").replace("entrys", "entries"), head.size),
        Quantity("root", head.root.hex(), head.root.hex()),
        *_key(facts),
        Quantity("head that the prediction names", f"{body.checkpoint_size:,} entries", body.checkpoint_size),
        Quantity("its root", body.checkpoint_root.hex(), body.checkpoint_root.hex()),
    )
    return Section("ledger", "On which state of the ledger", tuple(sentences), (), quantities)


# -- signers ----------------------------------------------------------------------------------------------------------


def _party(facts: Facts, role: str, said: str, entries: tuple[Located[Any], ...]) -> Signer:
    author = facts.author(entries[0])
    indices = tuple(sorted(entry.reference.index for entry in entries))
    body = author.body
    return Signer(role, repr(body.name), said, indices, author.reference.index, fingerprint(body.public_key))


def _clinic_said(facts: Facts) -> str:
    records = "my key and my encrypted records" if facts.ckks is not None else "my records, committed and certified"
    disclosure = facts.disclosure
    if disclosure is None:
        return f"these are {records}"
    granted = ", I consent to show answers" if disclosure.consent is not None else ""
    return f"these are {records}{granted}, and this is what I showed, on {disclosure.issued_at} by my own clock"


def _clinic_entries(facts: Facts) -> tuple[Located[Any], ...]:
    entries: list[Located[Any]] = [facts.prediction.records]
    if facts.ckks is not None:
        entries.append(facts.ckks.key)
    if facts.disclosure is not None:
        entries.append(facts.disclosure.entry)
        if facts.disclosure.consent is not None:
            entries.append(facts.disclosure.consent.grant)
    return tuple(entries)


def _consumer(facts: Facts) -> Iterator[Signer]:
    consent = None if facts.disclosure is None else facts.disclosure.consent
    if consent is not None and consent.request is not None:
        yield _party(facts, "consumer", "I ask this clinic to show me answers", (consent.request,))


def _approval(facts: Facts) -> Iterator[Signer]:
    approval = facts.prediction.approval
    if approval is None:
        return
    governance, index = facts.reading.governance, approval.reference.index
    for number, signature in enumerate(approval.body.signatures, start=1):
        known = governance is not None and signature.key in governance.hospitals
        name = "of your governance file" if known else "whose key nobody vouched for here"
        said = f"I approve this model (approval {number}, contract 0x{approval.body.contract.hex()})"
        yield Signer("hospital", name, said, (index,), None, f"secp256k1 {signature.key.hex()}")


def _log(facts: Facts) -> Signer:
    said = f"the ledger has {facts.head.size:,} entries with this root"
    key = "as trusted on this machine" if facts.reading.trusted is None else str(facts.reading.trusted.verifier)
    return Signer("ledger", repr(facts.head.origin), said, (), None, key)


def _witnesses(facts: Facts) -> Iterator[Signer]:
    witnessed, trusted = facts.witnessed, facts.reading.trusted
    if witnessed is None or trusted is None or trusted.policy is None:
        return
    keys = {witness.name: str(witness.verifier) for witness in trusted.policy.witnesses}
    for one in witnessed.cosigned:
        said = f"this head extends the one that I saw before; cosigned at {told(one.time)} by its clock"
        yield Signer("witness", repr(one.name), said, (), None, keys[one.name])


# -- the head ---------------------------------------------------------------------------------------------------------


def _key(facts: Facts) -> Iterator[Quantity]:
    trusted = facts.reading.trusted
    if trusted is not None:
        where = "given by an option" if facts.reading.pinned else "trusted on this machine"
        note = f"{where}; compare it with the one that the ledger's operator and witnesses publish"
        yield Quantity("key of the ledger", str(trusted.verifier), str(trusted.verifier), note)


def _when(facts: Facts, witnessed: WitnessedHead | None) -> str:
    own = f"The server's own clock said {facts.prediction.issued_at} when it attested the prediction."
    if witnessed is None:
        return f"{own} No witnesses dated this head: no policy with witnesses was given."
    if witnessed.time is None:
        return f"{own} The policy that was given asks for no witnesses, so nobody else dated this head."
    names = listed([repr(one.name) for one in witnessed.cosigned])
    return f"{own} By {told(witnessed.time)} enough witnesses of your policy had cosigned this head: {names} did."


def _revoked(facts: Facts) -> Iterator[Sentence]:
    for reference in facts.prediction.revoked_since:
        yield Sentence(f"Entry {reference.index}, which the prediction uses, was revoked after the prediction.")
    consent = None if facts.disclosure is None else facts.disclosure.consent
    for reference in () if consent is None else consent.revoked_since:
        yield Sentence(f"Entry {reference.index}, by which the disclosure was allowed, was revoked after it.")
