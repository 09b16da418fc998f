"""Policy, expiry, revocation, and the exposure cap: enforced before anything is evaluated."""

from __future__ import annotations

import secrets
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from api.entries import Model, Policy, Prediction, Records, Reference, Revocation
from api.exposure import recount
from api.prediction import Context, check_entry_size, plan_proofs
from api.registry import Registry
from api.settings import Settings
from ledger import Log
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError
from privacy.models.linear import LinearModel
from tests.api.conftest import (
    Caller,
    CertifiedModel,
    Running,
    Upload,
    certify,
    ok,
    publish,
    refused,
    register,
)

CAP = Fraction(9, 10)
"""135 of the 150 bits of each output of the session's model; one answer is 39 bits, two are 80, three are 120."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data=tmp_path_factory.mktemp("capped") / "data", min_free_bytes=0, exposure_cap=CAP)


def refuse(service: Running, clinic: Caller, records: int, model: int, type: str, check: str | None) -> dict:
    status = {"not-ready": 503, "verification-failed": 422, "unusable": 422}.get(type, 403)
    before = service.state()
    error = refused(clinic.predict(records, model, secrets.token_hex(32)), status, type, check)
    assert service.state() == before
    return error


def test_records_are_used_for_the_models_they_name(
    service: Running, clinic_party: Caller, owner_party: Caller, upload_cohort: Upload, model_entry: Reference
) -> None:
    cohort = upload_cohort(1)
    elsewhere = clinic_party.submit(replace(cohort.body, policy=Policy((), None)))
    refuse(service, clinic_party, elsewhere.index, model_entry.index, "prediction-refused", "policy.models")


def test_records_expire(service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference) -> None:
    expired = clinic_party.submit(replace(upload_cohort(1).body, policy=Policy("any", "2020-01-01T00:00:00Z")))
    refuse(service, clinic_party, expired.index, model_entry.index, "prediction-refused", "policy.until")


def test_nobody_asks_for_another_clinics_records(
    service: Running, clinic_party: Caller, owner_party: Caller, upload_cohort: Upload, model_entry: Reference
) -> None:
    records = clinic_party.submit(upload_cohort(1).body)
    for stranger in (register(service.client, "clinic", "clinic-z"), owner_party):
        refuse(service, stranger, records.index, model_entry.index, "not-permitted", "records.author")


def test_a_model_without_its_weights(
    service: Running,
    clinic_party: Caller,
    owner_party: Caller,
    upload_cohort: Upload,
    certified_model: CertifiedModel,
    params: ParameterSet,
) -> None:
    linear = LinearModel("bare", [[0.01, 0.01, 0.1]], [0.0], ("risk",), "identity", certified_model.schema)  # type: ignore[arg-type]
    bare = publish(owner_party, certify(linear, params, "1"))
    records = clinic_party.submit(upload_cohort(1).body)
    refuse(service, clinic_party, records.index, bare.index, "not-ready", None)
    listed = {m["index"]: m for m in ok(service.client.get("/v1/models"))}
    assert (listed[bare.index]["ready"], listed[bare.index]["revoked"]) == (False, False)
    owner_party.submit(Revocation(bare, "a mistake"))
    refuse(service, clinic_party, records.index, bare.index, "prediction-refused", "ledger.revoked")
    assert ok(service.client.get(f"/v1/models/{bare.index}"))["revoked"]


def test_revoked_records(service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference) -> None:
    records = clinic_party.submit(upload_cohort(1).body)
    clinic_party.submit(Revocation(records, "consent withdrawn"))
    refuse(service, clinic_party, records.index, model_entry.index, "prediction-refused", "ledger.revoked")


def test_a_schema_that_does_not_fit(
    service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference
) -> None:
    records = clinic_party.submit(replace(upload_cohort(1).body, schema=bytes(32)))
    refuse(service, clinic_party, records.index, model_entry.index, "verification-failed", "records.schema")


def test_the_cap_counts_what_was_released_what_waits_and_what_is_asked_for(
    service: Running,
    clinic_party: Caller,
    upload_cohort: Upload,
    model_entry: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two, four = (clinic_party.submit(upload_cohort(n).body).index for n in (1, 2, 4))
    error = refuse(service, clinic_party, four, model_entry.index, "exposure-cap", "exposure.cap")
    assert error["details"] == {
        "output": "stroke",
        "released_bits": 0.0,
        "waiting_bits": 0.0,
        "asked_bits": 164.0,
        "cap_bits": 135.0,
    }
    job = ok(clinic_party.predict(one, model_entry.index, secrets.token_hex(32)))["job"]
    clinic_party.wait(job)
    worker = service.service._worker
    monkeypatch.setattr(worker, "wake", lambda: None)  # the next job stays in the queue
    waiting = ok(clinic_party.predict(two, model_entry.index, secrets.token_hex(32)))["job"]
    error = refuse(service, clinic_party, one, model_entry.index, "exposure-cap", "exposure.cap")
    numbers = {name: error["details"][name] for name in ("released_bits", "waiting_bits", "asked_bits")}
    assert numbers == {"released_bits": 39.0, "waiting_bits": 80.0, "asked_bits": 39.0}
    monkeypatch.undo()
    worker.wake()
    clinic_party.wait(waiting)
    error = refuse(service, clinic_party, one, model_entry.index, "exposure-cap", "exposure.cap")
    assert (error["details"]["released_bits"], error["details"]["waiting_bits"]) == (119.0, 0.0)


def test_exposure_is_recounted_from_the_ledger_alone(
    service: Running, clinic_party: Caller, model_entry: Reference
) -> None:
    """After the two predictions of the test above: 1 and 2 patients."""
    rows = ok(service.client.get("/v1/exposure"))
    assert [(r["clinic"], r["model"], r["output"]) for r in rows] == [
        ("clinic-a", model_entry.index, "stroke"),
        ("clinic-a", model_entry.index, "sepsis"),
    ]
    for row in rows:
        assert (row["released_bits"], row["model_bits"], row["predictions"]) == (119.0, 150, 2)
        assert (row["recoverable"], row["cap_bits"]) == (False, 135.0)
    with Log.open_readonly(service.settings.data / "ledger.sqlite", service.service.verifier) as log:
        mine = recount(Registry.read(log), "clinic-a", model_entry.index)
    assert [float(row.exposure.released) for row in mine] == [119.0, 119.0]
    assert ok(service.client.get("/v1/exposure?clinic=clinic-b")) == []
    assert ok(service.client.get(f"/v1/exposure?model={model_entry.index}")) == rows
    refused(service.client.get("/v1/exposure?model=0"), 422, "verification-failed", "ledger.reference")


def test_f_is_recounted_and_not_read_from_entries(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that writes a larger blur into its entries lowers nobody's exposure."""
    registry = service.service.registry
    before = recount(registry)
    entries = registry._entries
    changed = list(entries)
    for place, entry in enumerate(entries):
        if isinstance(entry.body, Prediction):
            proofs = tuple(replace(p, blur_bits=71) for p in entry.body.proofs)
            changed[place] = replace(entry, body=replace(entry.body, proofs=proofs))
    assert any(changed[i] != entries[i] for i in range(len(entries)))
    monkeypatch.setattr(registry, "_entries", changed)
    assert recount(registry) == before


def test_a_revocation_between_request_and_evaluation(
    service: Running,
    clinic_party: Caller,
    upload_cohort: Upload,
    model_entry: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(upload_cohort(1).body, policy=Policy("any", "2100-01-01T00:00:00Z"))
    records = clinic_party.submit(other)
    monkeypatch.setattr(service.service, "_check_cap", lambda context, plan: None)
    monkeypatch.setattr(service.service._worker, "wake", lambda: None)
    job = ok(clinic_party.predict(records.index, model_entry.index, secrets.token_hex(32)))["job"]
    clinic_party.submit(Revocation(records, "consent withdrawn"))
    size = service.service.log.size
    monkeypatch.undo()
    service.service._worker.wake()
    state = clinic_party.wait(job)
    assert (state["state"], state["prediction"]) == ("failed", None)
    assert (state["error"]["type"], state["error"]["check"]) == ("prediction-refused", "ledger.revoked")
    assert service.service.log.size == size


# -- planning ---------------------------------------------------------------------------------------------------------


def big(service: Running, model_entry: Reference, upload_cohort: Upload, count: int) -> Context:
    """A context with an imaginary cohort of `count` patients."""
    model = service.service.registry.get(model_entry.index, Model)
    body: Records = replace(upload_cohort(1).body, count=count, blocks=-(-count // 4096))
    return Context(model, model, replace(model, body=body))  # type: ignore[arg-type]


def test_blocks_share_proofs_up_to_the_setting(service: Running, model_entry: Reference, upload_cohort: Upload) -> None:
    context = big(service, model_entry, upload_cohort, 40 * 4096 + 1)
    plan = plan_proofs(context.records.body, context.model.body, 64)
    assert [(p.group.first_block, p.group.blocks, p.group.count) for p in plan] == [
        (0, 32, 4096),
        (32, 8, 4096),
        (40, 1, 1),
    ]


def test_a_fine_grid_makes_smaller_proofs(service: Running, model_entry: Reference, upload_cohort: Upload) -> None:
    """256 instances leave no room for the blur at 2^-6, so fewer share a proof; a grid too fine is refused."""
    context = big(service, model_entry, upload_cohort, 128 * 4096)
    plan = plan_proofs(context.records.body, context.model.body, 256)
    assert [p.group.blocks for p in plan] == [64, 64]
    with pytest.raises(UsageError, match="no room"):
        plan_proofs(context.records.body, replace(context.model.body, grid_bits=30), 64)


def test_more_results_than_an_entry_holds(service: Running, model_entry: Reference, upload_cohort: Upload) -> None:
    for count, fits in ((400 * 4096, True), (600 * 4096, False)):
        context = big(service, model_entry, upload_cohort, count)
        plan = plan_proofs(context.records.body, context.model.body, 64)
        if fits:
            check_entry_size(context, plan)
        else:
            with pytest.raises(UsageError, match="divide the cohort"):
                check_entry_size(context, plan)


def test_the_settings_say_what_is_wrong(tmp_path: Path) -> None:
    for wrong in ({"exposure_cap": 0}, {"origin": "two words"}, {"registration": "maybe"}, {"instances": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(data=tmp_path, **wrong)  # type: ignore[arg-type]
