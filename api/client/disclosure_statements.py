"""From what a clinic says of answers of a verified prediction to the statements that are proven: one way for the clinic
that proves and the auditor that verifies (docs/spec/protocol.md, sections 6 and 9).

Ids, digests, commitments, positions and bounds come from the verified prediction; of what the clinic says, only which
answer is meant and what is said of it is used. That records and handles belong together is checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from api.binding import parameters_of
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from privacy.ckks.disclosure import DisclosedAnswer, DisclosureStatement
from privacy.ckks.packing import capacity
from privacy.errors import UsageError, VerificationFailed
from privacy.models.quantise import answer_bound
from privacy.mpc.disclosure import AnswerStatement, Kind
from privacy.zk.group import ARKWORKS

__all__ = ["Said", "answers_meant", "encrypted_statement", "joint_statements", "result_digests"]


class Said(Protocol):
    """What is said of one answer; `privacy.attestation_shown.ShownAnswer` is one."""

    @property
    def handle(self) -> bytes: ...
    @property
    def patient(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def versus(self) -> int | None: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def value(self) -> int: ...
    @property
    def tolerance(self) -> int: ...


def answers_meant(
    prediction: VerifiedPrediction | VerifiedJointPrediction, patient: int, output: int, versus: int | None
) -> None:
    """Check that this answer, or this difference of two, exists and may be shown.

    Raises:
        VerificationFailed: `disclosure.place`, `disclosure.softmax` for a single output of a softmax model (its
            probability depends on all), `disclosure.overflow` for a difference that could wrap.
    """
    outputs = len(prediction.output_names)
    if not (patient < prediction.count and output < outputs and (versus is None or versus < outputs)):
        raise VerificationFailed("disclosure.place", "the prediction has no such patient or output")
    if versus == output:
        raise VerificationFailed("disclosure.place", "a difference is of two different outputs")
    if isinstance(prediction, VerifiedJointPrediction):
        link, wraps = prediction.model.body.link, False  # over F_r, where the sum of two bounds is small
    else:
        link = prediction.model.body.outputs[output].link
        wraps = (
            versus is not None and _reach(prediction, output) + _reach(prediction, versus) > _modulus(prediction) // 2
        )
    if versus is None and link == "softmax":
        raise VerificationFailed(
            "disclosure.softmax", "a softmax probability depends on all outputs: only differences of two are shown"
        )
    if wraps:
        raise VerificationFailed("disclosure.overflow", "the difference of these two outputs could wrap around")


def _reach(prediction: VerifiedPrediction, output: int) -> int:
    stated, model = prediction.model.body.outputs[output], prediction.model.body
    params = parameters_of(model.parameter_set)
    return answer_bound(prediction.schema, stated.b, stated.b_bias, params, model.grid_bits)


def _modulus(prediction: VerifiedPrediction) -> int:
    """Q of the parameter set of a prediction."""
    modulus: int = parameters_of(prediction.model.body.parameter_set).Q
    return modulus


def result_digests(prediction: VerifiedPrediction, patient: int, output: int) -> tuple[bytes, int]:
    """The digest of the result that holds an answer, and the coefficient that it is.

    Raises VerificationFailed(`disclosure.place`).
    """
    for proof, statement in zip(prediction.prediction.body.proofs, prediction.statements, strict=True):
        size = capacity(statement.params, statement.packing, statement.d)
        block, place = divmod(patient, size)
        if output in proof.outputs and proof.first_block <= block < proof.first_block + proof.blocks:
            if place >= statement.count:
                break
            instance = (block - proof.first_block) * len(proof.outputs) + proof.outputs.index(output)
            return proof.results[instance], int(statement.positions[place])
    raise VerificationFailed("disclosure.place", "the prediction has no such patient or output")


def encrypted_statement(
    prediction: VerifiedPrediction, grant_id: bytes, recipient_nonce: bytes, answers: Sequence[Said]
) -> DisclosureStatement:
    """The statement about answers under encryption.

    Raises VerificationFailed as `answers_meant` does, UsageError for a statement that nobody can make.
    """
    key, model = prediction.key, prediction.model
    said = []
    for answer in answers:
        answers_meant(prediction, answer.patient, answer.output, answer.versus)
        if answer.kind == "open":
            raise UsageError("an answer under encryption is never shown whole: ask for it to within a tolerance")
        outputs = [answer.output] if answer.versus is None else [answer.output, answer.versus]
        found = [result_digests(prediction, answer.patient, output) for output in outputs]
        said.append(
            DisclosedAnswer(
                handle=answer.handle,
                patient=answer.patient,
                output=answer.output,
                versus=answer.versus,
                results=tuple(digest for digest, _ in found),
                position=found[0][1],
                kind=answer.kind,
                value=answer.value,
                tolerance=answer.tolerance,
            )
        )
    return DisclosureStatement(
        params=parameters_of(key.body.parameter_set),
        grid_bits=model.body.grid_bits,
        key_id=key.reference.leaf,
        key_certificate=key.body.certificate,
        C_plus=key.body.C_s_plus,
        C_minus=key.body.C_s_minus,
        model_id=model.reference.leaf,
        records_id=prediction.records.reference.leaf,
        prediction_id=prediction.prediction.reference.leaf,
        grant_id=grant_id,
        recipient_nonce=recipient_nonce,
        answers=tuple(said),
    )


def joint_statements(
    prediction: VerifiedJointPrediction, grant_id: bytes, recipient_nonce: bytes, answers: Sequence[Said]
) -> tuple[AnswerStatement, ...]:
    """The statements about committed answers, or differences of two: C_z - C_z' commits to z - z'.

    Raises as `encrypted_statement` does.
    """
    made = []
    for answer in answers:
        answers_meant(prediction, answer.patient, answer.output, answer.versus)
        commitment, bound = prediction.answer(answer.patient, answer.output), prediction.z_bound(answer.output)
        if answer.versus is not None:
            other = ARKWORKS.decode(prediction.answer(answer.patient, answer.versus))
            commitment = ARKWORKS.encode(ARKWORKS.add(ARKWORKS.decode(commitment), ARKWORKS.negate(other)))
            bound += prediction.z_bound(answer.versus)
        made.append(
            AnswerStatement(
                prediction_id=prediction.prediction.reference.leaf,
                handle=answer.handle,
                patient=answer.patient,
                output=answer.output,
                answer=commitment,
                scale_bits=prediction.answer_scale_bits,
                grid_bits=prediction.model.body.grid_bits,
                bound=bound,
                kind=answer.kind,
                value=answer.value,
                tolerance=answer.tolerance,
                recipient_nonce=recipient_nonce,
                grant_id=grant_id,
            )
        )
    return tuple(made)
