"""Attack: commit to fractions or to huge weights, so that the "linear model" is some other function mod Q.

Evaluation is proven mod Q. Without `bounded` and the overflow check that is all that is proven, and a function that is
linear mod Q can be anything once its values are read as numbers in (-Q/2, Q/2).
"""

from __future__ import annotations

import pytest

from privacy.ckks.params import parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models import certificate as module
from privacy.models.certificate import (
    QUANTISATION_RULE,
    ModelStatement,
    OutputStatement,
    WeightOpening,
    certify_model,
    verify_model_certificate,
    weights_key,
)
from privacy.models.quantise import answer_bound, encoded_bound_integer
from privacy.models.schema import Feature, Schema
from privacy.zk.group import ARKWORKS
from privacy.zk.pedersen import commitment_key
from privacy.zk.randomness import random_scalar
from privacy.zk.relations import LinearSegment, Run, prove_linear
from privacy.zk.transcript import Transcript

PARAMS = parameter_set("linear-4096")
Q = PARAMS.Q
HALF = (Q + 1) // 2  # 1/2 mod Q
B, B_BIAS = 28, 62


def schema_of(d: int, maximum: float = 1.0) -> Schema:
    features = tuple(Feature(f"x{i}", "1", -maximum, maximum, "number", "identity") for i in range(d))
    return Schema("ward", 1, features)


def statement_of(schema: Schema, C_W: bytes) -> ModelStatement:
    return ModelStatement(
        "risk", "1", schema, PARAMS, QUANTISATION_RULE, 6, (OutputStatement("y", "margin", B, B_BIAS, C_W),)
    )


def centred(value: int) -> int:
    """What a decryption reads."""
    value %= Q
    return value - Q if value > Q // 2 else value


def prove_evaluation_only(values: list[int], rho: int, x: list[int], z: int) -> None:
    """The evaluation relation alone, proven and verified: C_W opens to (w, bias) with <w, x> + bias = z mod Q."""
    quotient, remainder = divmod(sum(w * a for w, a in zip(values, [*x, 1], strict=True)) - z, Q)
    assert remainder == 0
    key, quotient_key = weights_key(len(x)), commitment_key("test/quotient", 1)
    sigma = random_scalar()
    segments = [
        LinearSegment(key, key.commit(values, rho), (Run(len(values), None),)),
        LinearSegment(quotient_key, quotient_key.commit([quotient], sigma), (Run(1, None),)),
    ]
    alphas = [[*x, 1], [-Q]]
    proof = prove_linear(Transcript(b"test"), segments, alphas, z, [values, [quotient]], [rho, sigma])
    proof.verify(Transcript(b"test"), segments, alphas, z)


def test_a_fraction_passes_the_evaluation_relation_and_reads_the_lowest_bit_of_a_record() -> None:
    """w = 1/2 mod Q: records that differ by 2^-34 of a unit get answers 2^12 units apart."""
    values, rho = [HALF, 0], random_scalar()
    x = 123_456_789
    answers = [centred(HALF * (x + step)) for step in range(3)]
    for step, z in enumerate(answers):
        prove_evaluation_only(values, rho, [x + step], z)
    first, second = answers[1] - answers[0], answers[2] - answers[1]
    assert abs(first - second) > Q // 2  # no linear function over the integers does this
    assert abs(answers[1] - answers[0]) > 2**12 * 2**58


def test_a_model_without_bounds_gives_chosen_patients_chosen_scores() -> None:
    """One weight, one patient: w = score / x mod Q, and it opens its commitment."""
    x, score = 3 * 2**33 + 1, 977 << 58
    w = score * pow(x, -1, Q) % Q
    assert centred(w * x) == score
    prove_evaluation_only([w, 0], random_scalar(), [x], score)
    assert w >= 1 << B


@pytest.mark.parametrize("w", [HALF, Q, Q + 1, -HALF])
def test_such_a_model_gets_no_certificate(w: int) -> None:
    rho = random_scalar()
    C_W = ARKWORKS.encode(weights_key(1).commit([w, 0], rho))
    with pytest.raises(UsageError, match="out of its public range"):
        certify_model(statement_of(schema_of(1), C_W), (WeightOpening((w,), 0, rho),))


def test_the_certificate_of_a_bounded_model_does_not_serve_it() -> None:
    rho = random_scalar()
    honest = ARKWORKS.encode(weights_key(1).commit([1, 0], rho))
    certificate = certify_model(statement_of(schema_of(1), honest), (WeightOpening((1,), 0, rho),))
    verify_model_certificate(statement_of(schema_of(1), honest), certificate)
    forged = ARKWORKS.encode(weights_key(1).commit([HALF, 0], rho))
    with pytest.raises(VerificationFailed) as refusal:
        verify_model_certificate(statement_of(schema_of(1), forged), certificate)
    assert refusal.value.check == "quadratic.opening"


def test_bounded_weights_over_wide_ranges_wrap_and_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight is in its range, yet a large score decrypts as a negative one: only the overflow check sees it."""
    schema = schema_of(2, maximum=256.0)
    w = (1 << B) - 1
    x = encoded_bound_integer(schema.features[0], PARAMS.input_scale_bits)
    assert 2 * w * x > 0 > centred(2 * w * x)
    rho = random_scalar()
    statement = statement_of(schema, ARKWORKS.encode(weights_key(2).commit([w, w, 0], rho)))
    opening = WeightOpening((w, w), 0, rho)
    with monkeypatch.context() as weakened:
        weakened.setattr(module, "verify_overflow", lambda *_: None)
        certificate = certify_model(statement, (opening,))
        verify_model_certificate(statement, certificate)  # a build without the check is fooled
    with pytest.raises(VerificationFailed) as refusal:
        verify_model_certificate(statement, certificate)
    assert refusal.value.check == "model.overflow"


def test_the_overflow_check_turns_exactly_where_answers_could_wrap() -> None:
    """Of two neighbouring ranges the one below Q/2 is certified, the other is not."""
    low, high = 1.0, 2.0**20
    while high - low > 2.0**-20:
        middle = (low + high) / 2
        fits = 2 * answer_bound(schema_of(1, middle), B, B_BIAS, PARAMS, 6) < Q
        low, high = (middle, high) if fits else (low, middle)
    rho = random_scalar()
    C_W = ARKWORKS.encode(weights_key(1).commit([1, 0], rho))
    opening = WeightOpening((1,), 0, rho)
    fits = statement_of(schema_of(1, low), C_W)
    verify_model_certificate(fits, certify_model(fits, (opening,)))
    with pytest.raises(VerificationFailed, match=r"model\.overflow"):
        certify_model(statement_of(schema_of(1, high), C_W), (opening,))
