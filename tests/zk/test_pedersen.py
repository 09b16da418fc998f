"""Com(v; rho) = sum v_i G_i + rho H."""

from __future__ import annotations

import pytest

from privacy.errors import UsageError
from privacy.zk.generators import blinding_generator, generators
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.randomness import random_scalar

VALUES = [5, -7, 0, ORDER - 1, -(1 << 40)]


def by_hand(key: CommitmentKey, values, rho):
    group = key.group
    total = group.multiply(key.blinding, rho % ORDER)
    for point, value in zip(key.points, values, strict=True):
        total = group.add(total, group.multiply(point, value % ORDER))
    return total


def test_commitment_is_the_sum_it_says():
    key, rho = commitment_key("test", len(VALUES)), random_scalar()
    assert ARKWORKS.equal(key.commit(VALUES, rho), by_hand(key, VALUES, rho))


def test_both_implementations_commit_alike():
    rho = random_scalar()
    mine = commitment_key("test", len(VALUES)).commit(VALUES, rho)
    other = commitment_key("test", len(VALUES), REFERENCE).commit(VALUES, rho)
    assert ARKWORKS.encode(mine) == REFERENCE.encode(other)


def test_key_is_the_purpose_s_generators_and_the_common_blinding():
    key = commitment_key("test", 3)
    assert len(key) == 3
    assert [ARKWORKS.encode(p) for p in key.points] == [ARKWORKS.encode(p) for p in generators("test", 3)]
    assert ARKWORKS.equal(key.blinding, blinding_generator())
    assert key == commitment_key("test", 3)
    assert not set(map(ARKWORKS.encode, key.points)) & set(map(ARKWORKS.encode, commitment_key("other", 3).points))


def test_every_coordinate_and_the_blinding_change_the_commitment():
    key = commitment_key("test", len(VALUES))
    commitments = [key.commit(VALUES, 11), key.commit(VALUES, 12), key.commit(VALUES[::-1], 11)]
    for i in range(len(VALUES)):
        changed = list(VALUES)
        changed[i] -= 1
        commitments.append(key.commit(changed, 11))
    assert len({ARKWORKS.encode(c) for c in commitments}) == len(commitments)


def test_commitments_add():
    key = commitment_key("test", 3)
    left, right = key.commit([1, -2, 3], 10), key.commit([-4, 5, 6], -30)
    assert ARKWORKS.equal(ARKWORKS.add(left, right), key.commit([-3, 3, 9], -20))
    assert ARKWORKS.equal(ARKWORKS.multiply(left, -2), key.commit([-2, 4, -6], -20))


def test_signed_values_are_residues():
    key = commitment_key("test", 2)
    assert ARKWORKS.equal(key.commit([-1, ORDER - 2], -3), key.commit([ORDER - 1, -2], ORDER - 3))


def test_joined_keys_commit_to_the_joined_vector():
    left, right = commitment_key("test", 2), commitment_key("other", 3)
    joined = left + right
    assert len(joined) == 5
    total = ARKWORKS.add(left.commit([1, 2], 7), right.commit([3, 4, 5], 8))
    assert ARKWORKS.equal(joined.commit([1, 2, 3, 4, 5], 15), total)


def test_the_empty_vector_is_a_commitment_to_nothing():
    key = commitment_key("test", 0)
    assert ARKWORKS.equal(key.commit([], 5), ARKWORKS.multiply(blinding_generator(), 5))


@pytest.mark.parametrize("values", [[], [1, 2], [1, 2, 3, 4]])
def test_vector_of_another_length_is_refused(values):
    with pytest.raises(UsageError, match="3 generators"):
        commitment_key("test", 3).commit(values, 1)


@pytest.mark.parametrize(("value", "rho"), [(ORDER, 1), (-ORDER, 1), (1, ORDER), (1, 1 << 256)])
def test_value_that_would_wrap_is_refused(value, rho):
    with pytest.raises(UsageError, match="scalar"):
        commitment_key("test", 1).commit([value], rho)
