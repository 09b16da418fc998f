"""What one entry of the ledger says, in words, and whom it is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from api.client.ledger_report.reading import OpenRegistry
from api.entries import (
    Approval,
    Body,
    Clearance,
    CommittedRecords,
    Disclosure,
    Grant,
    JointPrediction,
    Key,
    Model,
    Network,
    Party,
    Policy,
    Prediction,
    Records,
    Reference,
    Refusal,
    Request,
    Revocation,
    Suspension,
)
from api.registry import Logged
from privacy.errors import VerificationFailed

__all__ = ["Said", "models_of", "quoted", "references", "said", "users_of"]


@dataclass(frozen=True)
class Said:
    """An entry in words. `clinic` is whose data it is about, `records` and `model_entry` are ledger indices.

    `asked_by` is the consumer whose request it is or answers.
    """

    what: str
    clinic: str = ""
    records: int | None = None
    model: str = ""
    model_entry: int | None = None
    patients: int | None = None
    asked_by: str = ""


def quoted(name: str) -> str:
    """A name that somebody chose, in quotes that it cannot end."""
    return json.dumps(name, ensure_ascii=False)


def references(value: Any) -> Iterator[Reference]:
    """Every reference in a body, in the order of its fields: what it is about, of whatever kind it is."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from references(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from references(getattr(value, field.name))


def said(registry: OpenRegistry, entry: Logged[Body]) -> Said:
    """What `entry` says. Everything that it refers to is in the registry, which checked it."""
    body: object = entry.body  # kinds that are not told here by name are told by their kind
    match body:
        case Party():
            name = body.name if body.role == "clinic" else ""
            return Said(f"registered as {body.role} {quoted(body.name)}", clinic=name)
        case Key():
            return Said(f"registered encryption key number {body.number}", body.clinic)
        case Model():
            return _published(entry.reference, body, f"a linear model with {_many(len(body.outputs), 'output')}")
        case Network():
            return _published(entry.reference, body, f"a network of {_many(len(body.layers), 'layer')}")
        case Approval():
            approved = said(registry, registry.entry(body.model.index))
            signed = _many(len(body.signatures), "hospital")
            text = (
                f"recorded that {signed} approved the model {quoted(approved.model)}, contract 0x{body.contract.hex()}"
            )
            return Said(f"{text} on chain {body.chain}", model=approved.model, model_entry=approved.model_entry)
        case Records():
            return _committed(entry.reference, body, "encrypted records")
        case CommittedRecords():
            return _committed(entry.reference, body, "records")
        case Prediction():
            records, model = registry.resolve(body.records, Records), registry.resolve(body.model, Model)
            counts = {
                block: proof.count
                for proof in body.proofs
                for block in range(proof.first_block, proof.first_block + proof.blocks)
            }
            return _answered(records, model, sum(counts.values()), "on encrypted records")
        case JointPrediction():
            committed, network = registry.resolve(body.records, CommittedRecords), registry.resolve(body.model, Network)
            return _answered(committed, network, sum(proof.count for proof in body.proofs), "computed jointly")
        case Disclosure():
            shown = said(registry, registry.entry(body.prediction.index))
            asked_by = "" if body.grant is None else said(registry, registry.entry(body.grant.index)).asked_by
            text = f"showed answers of entry {body.prediction.index} to "
            text += quoted(asked_by) if asked_by else "a recipient who is not on the ledger"
            text += ", without a grant" if body.grant is None else f", under the grant in entry {body.grant.index}"
            return Said(text, shown.clinic, shown.records, shown.model, shown.model_entry, asked_by=asked_by)
        case Request():
            clinic, consumer = registry.resolve(body.clinic, Party).body.name, _author(registry, entry)
            return Said(f"asked {quoted(clinic)} to show something", clinic, asked_by=consumer)
        case Grant():
            clinic = _author(registry, entry)
            if body.request is None:
                text = f"granted somebody who is not on the ledger to be shown something, until {body.until}"
                return Said(text, clinic)
            asked = said(registry, registry.entry(body.request.index))
            text = f"granted the request in entry {body.request.index} of {quoted(asked.asked_by)}, until {body.until}"
            return Said(text, clinic, asked_by=asked.asked_by)
        case Refusal():
            asked = said(registry, registry.entry(body.request.index))
            text = f"refused the request in entry {body.request.index} of {quoted(asked.asked_by)}: {body.reason}"
            return Said(text, _author(registry, entry), asked_by=asked.asked_by)
        case Suspension():
            clinic, owner = (registry.resolve(reference, Party).body.name for reference in (body.clinic, body.owner))
            text = f"reported a session of {quoted(clinic)} and {quoted(owner)} that ended without its proof"
            return Said(f"{text}: {quoted(body.reason)}", clinic)
        case Clearance():
            stopped = said(registry, registry.entry(body.suspension.index))
            return Said(f"agreed to go on after the suspension in entry {body.suspension.index}", stopped.clinic)
        case Revocation():
            target = said(registry, registry.entry(body.target.index))
            text = f"withdrew entry {body.target.index} ({_short_kind(registry.entry(body.target.index).body)})"
            return Said(f"{text}: {quoted(body.reason)}", target.clinic, target.records, target.model)
        case _:
            about = [_said_of(registry, reference.index) for reference in references(body)]
            clinic = next((one.clinic for one in about if one.clinic), "")
            used = next((one for one in about if one.model), Said(""))
            text = f"wrote an entry of kind {entry.body.KIND}"
            return Said(text, clinic, None, used.model, used.model_entry)


def users_of(registry: OpenRegistry, clinic: str) -> Iterator[int]:
    """The models that have answered on records of a clinic, by ledger index; some perhaps several times."""
    for index in range(registry.size):
        entry = registry.entry(index)
        if isinstance(entry.body, Prediction | JointPrediction):
            told = said(registry, entry)
            if told.clinic == clinic and told.model_entry is not None:
                yield told.model_entry


def models_of(registry: OpenRegistry) -> list[int]:
    """Every model and network, by ledger index."""
    return [index for index in range(registry.size) if isinstance(registry.entry(index).body, Model | Network)]


def _published(reference: Reference, model: Model | Network, form: str) -> Said:
    name = f"{model.name} {model.version}"
    return Said(f"published the model {quoted(name)}, {form}", model=name, model_entry=reference.index)


def _committed(reference: Reference, records: Records | CommittedRecords, form: str) -> Said:
    text = f"committed {form} of {_many(records.count, 'patient')}, {_many(records.d, 'measurement')} each"
    return Said(f"{text}, {_allowed(records.policy)}", records.clinic, reference.index, patients=records.count)


def _answered(
    records: Logged[Records] | Logged[CommittedRecords], model: Logged[Model] | Logged[Network], patients: int, how: str
) -> Said:
    name = f"{model.body.name} {model.body.version}"
    return Said(
        f"logged answers of the model {quoted(name)} for {_many(patients, 'patient')}, {how}",
        records.body.clinic,
        records.reference.index,
        name,
        model.reference.index,
        patients,
    )


def _allowed(policy: Policy) -> str:
    if policy.models == "any":
        text = "for any model"
    elif not policy.models:
        text = "for no model"
    else:
        text = f"for the models in entries {', '.join(str(model.index) for model in policy.models)}"
    return f"{text}, until {policy.until}" if policy.until is not None else f"{text}, without an end"


def _author(registry: OpenRegistry, entry: Logged[Body]) -> str:
    assert entry.author is not None  # only a party's entry has none
    return registry.resolve(entry.author, Party).body.name


def _said_of(registry: OpenRegistry, index: int) -> Said:
    try:
        registry.author_of(index)  # a gap has none
    except VerificationFailed:
        return Said("")
    return said(registry, registry.entry(index))


def _short_kind(body: Body) -> str:
    return body.KIND.removeprefix("sealproof/").rpartition("/")[0].replace("-", " ")


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
