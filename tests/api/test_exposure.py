"""What a model has to hide, less what its owner has proven of it to everybody."""

from __future__ import annotations

from dataclasses import replace

from api.entries import Bounded, Model, Sign, ZeroWeight
from api.exposure import hidden_bits
from privacy.ckks.exposure import model_bits
from tests.support.bundles import model_material

DIGEST = bytes(32)


def model(*statements: ZeroWeight | Sign | Bounded) -> Model:
    return replace(model_material().body(), statements=statements)


def test_a_model_hides_all_its_bits_and_less_what_is_proven_of_it() -> None:
    output = model().outputs[0]
    b, whole = output.b, model_bits(3, output.b, output.b_bias)
    assert hidden_bits(model(), 3, 0) == whole == 3 * (b + 1) + output.b_bias + 1
    assert hidden_bits(model(ZeroWeight("zero-weight", 0, 1, DIGEST)), 3, 0) == whole - (b + 1)
    assert hidden_bits(model(Sign("sign", 0, 1, "non-negative", DIGEST)), 3, 0) == whole - 1
    assert hidden_bits(model(Bounded("bounded", 0, 2, 7, DIGEST)), 3, 0) == whole - (b + 1) + 4  # -7 .. 7


def test_several_statements_about_one_weight_count_as_the_narrowest() -> None:
    b = model().outputs[0].b
    zero, sign = ZeroWeight("zero-weight", 0, 1, DIGEST), Sign("sign", 0, 1, "non-positive", DIGEST)
    assert hidden_bits(model(sign, zero), 3, 0) == hidden_bits(model(zero), 3, 0)
    # A statement that says less than the certificate takes nothing off, and none adds anything.
    assert hidden_bits(model(Bounded("bounded", 0, 0, 1 << b, DIGEST)), 3, 0) == hidden_bits(model(), 3, 0)


def test_statements_about_other_outputs_or_features_count_nothing() -> None:
    assert hidden_bits(model(ZeroWeight("zero-weight", 0, 9, DIGEST)), 3, 0) == hidden_bits(model(), 3, 0)
    two = replace(model_material(((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))).body())
    about = replace(two, statements=(ZeroWeight("zero-weight", 1, 0, DIGEST),))
    assert hidden_bits(about, 3, 0) == hidden_bits(two, 3, 0)
    assert hidden_bits(about, 3, 1) < hidden_bits(two, 3, 1)
