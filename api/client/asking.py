"""What a request is about, looked up on the log: the clinic, and whose answers of which model."""

from __future__ import annotations

from api.client.session import LocatedModel, Session
from api.consent import Scope
from api.entries import CommittedRecords, JointPrediction, Party, Prediction, Records, Reference
from api.registry import Logged, Registry
from privacy.errors import UsageError, VerificationFailed

__all__ = ["clinic_on", "model_of_prediction", "scope_of"]

AnyPrediction = Logged[Prediction] | Logged[JointPrediction]
AnyRecords = Logged[Records] | Logged[CommittedRecords]


def clinic_on(registry: Registry, which: str | int) -> Logged[Party]:
    """A clinic by its name, which the log has once, or by the index of its entry. Raises UsageError."""
    if isinstance(which, int):
        try:
            found = registry.get(which, Party)
        except VerificationFailed as error:
            raise UsageError(f"entry {which} is no party on the ledger") from error
    else:
        named = registry.party_named(which)
        if named is None:
            clinics = ", ".join(repr(p.body.name) for p in registry.all(Party) if p.body.role == "clinic")
            raise UsageError(f"the ledger has no party {which!r}; it has the clinics {clinics or 'none'}")
        found = named
    if found.body.role != "clinic":
        raise UsageError(
            f"{found.body.name!r} is no clinic but registered as {found.body.role}: only clinics are asked"
        )
    return found


def scope_of(
    session: Session,
    registry: Registry,
    clinic: Logged[Party],
    model: str | int | LocatedModel | None,
    records: int | None,
    prediction: int | None,
) -> tuple[Scope, LocatedModel]:
    """Which predictions are meant, all of the clinic's records, and the model that made them. Raises UsageError."""
    if prediction is not None:
        if records is not None:
            raise UsageError("a prediction is of certain records already: leave records out")
        found = _prediction(registry, prediction)
        about = session.model(found.body.model.index)
        if model is not None and session.model(model).reference != about.reference:
            raise UsageError(f"the prediction in entry {prediction} is of another model")
        _check_records(registry, clinic, found.body.records.index)
        return Scope(found.reference, None, None), about
    if model is None:
        raise UsageError("say which model is asked about (model, --model), or which prediction (prediction)")
    about = session.model(model)
    index = registry.revocation(about.reference)
    if index is not None:
        raise UsageError(f"the model {about.body.name!r} was withdrawn by ledger entry {index}")
    cohort = None if records is None else _check_records(registry, clinic, records)
    return Scope(None, about.reference, cohort), about


def model_of_prediction(session: Session, registry: Registry, index: int) -> LocatedModel:
    """The model of the prediction in an entry. Raises UsageError."""
    return session.model(_prediction(registry, index).body.model.index)


def _prediction(registry: Registry, index: int) -> AnyPrediction:
    try:
        return registry.get(index, Prediction)
    except VerificationFailed:
        pass
    try:
        return registry.get(index, JointPrediction)
    except VerificationFailed as error:
        raise UsageError(f"entry {index} is no prediction") from error


def _check_records(registry: Registry, clinic: Logged[Party], index: int) -> Reference:
    """The records in an entry, which must be the clinic's."""
    found = _records(registry, index)
    if found.author != clinic.reference:
        raise UsageError(f"the records in entry {index} are not those of {clinic.body.name!r}")
    revoked = registry.revocation(found.reference)
    if revoked is not None:
        raise UsageError(f"the records in entry {index} were withdrawn by ledger entry {revoked}")
    return found.reference


def _records(registry: Registry, index: int) -> AnyRecords:
    try:
        return registry.get(index, Records)
    except VerificationFailed:
        pass
    try:
        return registry.get(index, CommittedRecords)
    except VerificationFailed as error:
        raise UsageError(f"entry {index} is no records entry") from error
