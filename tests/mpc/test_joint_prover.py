"""Two parties get the network's exact answers and a proof, or an error; and of the other's secrets nothing."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import pytest

from privacy.errors import DecodeError, MissingDependency, SessionBroken, UsageError, VerificationFailed
from privacy.models.network_quantise import layer_bounds
from privacy.mpc.answers import open_answers
from privacy.mpc.channel import memory_channels
from privacy.mpc.dealer import Correlations, deal
from privacy.mpc.joint_proof import answers_digest, verify_joint
from privacy.mpc.joint_prover import BatchResult, compute_answer_shares, prove_batch
from privacy.zk.group import ARKWORKS, ORDER
from tests.support.joint_build import Case, Outcome, Tap, case, evaluate, run

pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)

NETWORKS = {
    "linear": ((4, 1), 6),
    "linear, three outputs": ((3, 3), 6),
    "one hidden layer": ((4, 3, 1), 6),
    "one hidden layer, long words": ((3, 2, 2), 22),
    "two hidden layers": ((3, 2, 2, 2), 6),
}
SMALL = ((2, 1), (3, 2, 1))
"""Without and with a hidden layer."""


def opened(some: Case, outcome: Outcome) -> list[int]:
    of_A, of_B = outcome.results
    shapes = [layer.shape for layer in some.statement.layers]
    bound = layer_bounds(some.schema, shapes, some.statement.parameters.input_scale_bits)[-1]
    return [opening.z for opening in open_answers(of_A.answers, of_A.shares, of_B.shares, bound)]


@pytest.mark.parametrize("patients", [1, 3])
@pytest.mark.parametrize(("widths", "b"), NETWORKS.values(), ids=NETWORKS)
def test_the_answers_are_the_network_s_and_the_proof_is_anybody_s(
    widths: tuple[int, ...], b: int, patients: int
) -> None:
    some = case(widths, patients, b=b, seed=patients)
    outcome = run(some)
    of_A, of_B = outcome.results
    assert opened(some, outcome) == some.answers
    assert (of_A.proof, of_A.answers) == (of_B.proof, of_B.answers)
    assert verify_joint(some.statement, of_A.proof) == of_A.answers
    assert len(answers_digest(of_A.answers)) == 32


def test_both_signs_of_every_neuron_are_exact() -> None:
    """Enough patients that every neuron is silent for one of them and speaks for another."""
    rows = case((3, 4, 2), seed=8).rows
    some = case((3, 4, 2), 12, seed=8, rows=[[replace(row, bias=0) for row in rows[0]], rows[1]])
    hidden = [evaluate(some.rows, record.values)[0][0] for record in some.records]
    assert all({h[k] < 0 for h in hidden} == {True, False} for k in range(4))
    assert opened(some, run(some)) == some.answers


def test_a_later_and_partial_batch_is_proven_as_such() -> None:
    some = case((3, 2, 1), 2, first=128)
    outcome = run(some)
    assert opened(some, outcome) == some.answers
    with pytest.raises(VerificationFailed):
        verify_joint(replace(some.statement, first=64), outcome.results[0].proof)


@pytest.mark.slow
def test_a_full_batch_is_exact() -> None:
    some = case((4, 3, 1), 64)
    assert opened(some, run(some)) == some.answers


EDGES = {"zeros": [0, 0], "most": [(1 << 16), (1 << 16)], "least": [-(1 << 16), -(1 << 16)], "mixed": [1 << 16, -1]}


@pytest.mark.parametrize("values", EDGES.values(), ids=EDGES)
def test_records_at_the_edges_of_the_schema_are_exact(values: list[int]) -> None:
    some = case((2, 2, 1), values=[values])
    assert opened(some, run(some)) == some.answers


def test_pre_activations_of_zero_and_minus_one_have_the_right_sign() -> None:
    some = case((1, 2, 1))
    first, second = some.rows[0]
    rows = [[replace(first, weights=(0,), bias=0), replace(second, weights=(0,), bias=-1)], some.rows[1]]
    some = case((1, 2, 1), rows=rows)
    assert evaluate(some.rows, some.records[0].values)[0] == [[0, -1]]
    assert opened(some, run(some)) == some.answers


@pytest.mark.parametrize("widths", SMALL)
def test_all_dealt_randomness_is_used_once(widths: tuple[int, ...]) -> None:
    some = case(widths)
    channels, dealt = memory_channels(), deal(some.plan)
    parts = [Correlations(role, some.plan, part) for role, part in zip("AB", dealt, strict=True)]  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads:
        tasks = [
            threads.submit(prove_batch, role, some.statement, secret, channel, part)  # type: ignore[arg-type]
            for role, secret, channel, part in zip("AB", (some.records, some.rows), channels, parts, strict=True)
        ]
        assert all(task.result() for task in tasks)
    assert [part.left for part in parts] == [0, 0]


def test_a_linear_model_needs_no_crypten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "privacy.mpc.backend", None)
    some = case((4, 1), 2)
    assert opened(some, run(some)) == some.answers


def test_shares_without_a_proof_are_the_same_numbers() -> None:
    some = case((3, 2, 2), 2)
    channels, dealt = memory_channels(), deal(some.plan)
    with ThreadPoolExecutor(2) as threads:
        tasks = [
            threads.submit(
                compute_answer_shares, role, some.statement, secret, channel, Correlations(role, some.plan, part)
            )  # type: ignore[arg-type]
            for role, secret, channel, part in zip("AB", (some.records, some.rows), channels, dealt, strict=True)
        ]
        of_A, of_B = (task.result() for task in tasks)
    assert [(a + b - z) % ORDER for a, b, z in zip(of_A, of_B, some.answers, strict=True)] == [0] * 4


# -- before anything is sent ------------------------------------------------------------------------------------------


def test_a_secret_that_does_not_open_the_statement_is_refused_before_anything_is_sent() -> None:
    some, other = case((3, 2, 1), 2), case((3, 2, 1), 2, seed=2)
    A, _ = memory_channels()
    first, second = some.records
    row, *rest = some.rows[0]
    wrong: list[tuple[str, Sequence[object]]] = [
        ("A", other.records),
        ("A", (second, first)),
        ("A", (first,)),
        ("A", (first, second, second)),
        ("A", (first, replace(second, rho=second.rho + 1))),
        ("A", (first, replace(second, values=second.values[:2]))),
        ("A", ()),
        ("A", some.rows),
        ("B", other.rows),
        ("B", (some.rows[0][::-1], some.rows[1])),
        ("B", (some.rows[0],)),
        ("B", (*some.rows, some.rows[1])),
        ("B", ((replace(row, bias=row.bias + 1), *rest), some.rows[1])),
        ("B", ((replace(row, weights=row.weights[:2]), *rest), some.rows[1])),
        ("B", (some.rows[0][:1], some.rows[1])),
        ("B", some.records),
        ("B", ()),
    ]
    for role, secret in wrong:
        correlations = Correlations(role, some.plan, deal(some.plan)["AB".index(role)])  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="does not open"):
            prove_batch(role, some.statement, secret, A, correlations)  # type: ignore[arg-type]
        assert correlations.left == len(some.plan)
    assert A.sent_bytes == 0


def test_a_network_that_could_overflow_is_refused_before_anything_is_sent() -> None:
    some = case((3, 2, 1))
    first, second = some.statement.layers
    wide = replace(some.statement, layers=(replace(first, shape=replace(first.shape, b=60)), second))
    A, _ = memory_channels()
    for role, secret in (("A", some.records), ("B", some.rows)):
        with pytest.raises(VerificationFailed, match=r"network\.overflow"):
            prove_batch(role, wide, secret, A, Correlations("A", some.plan, deal(some.plan)[0]))  # type: ignore[arg-type]
    assert A.sent_bytes == 0


def test_secrets_are_not_shown() -> None:
    some = case((2, 1))
    result = run(some).results[0]
    assert isinstance(result, BatchResult) and "shares" not in repr(result)
    assert repr(some.rows[0][0]) == "Row()"


# -- what is sent -----------------------------------------------------------------------------------------------------


@cache
def two_runs(widths: tuple[int, ...]) -> tuple[Case, list[Outcome]]:
    some = case(widths, 2)
    return some, [run(some) for _ in range(2)]


def by_label(outcome: Outcome, place: int) -> dict[str, list[bytes]]:
    out = defaultdict(list)
    for label, data in outcome.channels[place].frames:
        out[label].append(data)
    return out


@pytest.mark.parametrize("place", [0, 1], ids=["A", "B"])
@pytest.mark.parametrize("widths", SMALL)
def test_equal_inputs_give_messages_without_a_common_part(widths: tuple[int, ...], place: int) -> None:
    """Every point and scalar that a party sends is new in every run, and none comes twice in one."""
    _, runs = two_runs(widths)
    first, second = (by_label(outcome, place) for outcome in runs)
    assert first.keys() == second.keys()
    sizes = {"commitments": 48, "masks": 48, "blind check": 48, "ring key": 32, "tau": 32, "responses": 32}
    seen: list[bytes] = []
    for label in first:
        assert list(map(len, first[label])) == list(map(len, second[label]))
        if label.startswith("ring."):
            continue
        # Both the inner products for t0, t1 and the first messages of the proof are called masks: scalars, then points.
        for left, right in zip(first[label], second[label], strict=True):
            size = sizes.get(label, 32)
            size = 32 if label == "masks" and left is first[label][0] else size
            parts = [data[i : i + size] for data in (left, right) for i in range(0, len(data), size)]
            assert len(set(parts)) == len(parts), label
            seen += parts
    assert len(set(seen)) == len(seen)


def test_what_crypten_sends_differs_in_every_word() -> None:
    _, runs = two_runs((3, 2, 1))
    for place in (0, 1):
        first, second = (by_label(outcome, place) for outcome in runs)
        rings = [label for label in first if label.startswith("ring.")]
        assert len(rings) > 5
        words = [
            (left[i : i + 8], right[i : i + 8])
            for label in rings
            for left, right in zip(first[label], second[label], strict=True)
            for i in range(0, len(left), 8)
        ]
        assert not any(left == right for left, right in words)


def test_no_secret_is_sent_as_it_is() -> None:
    some, runs = two_runs((3, 2, 1))
    secrets = [*(v for r in some.records for v in r.values), *some.common, *some.answers]
    secrets += [v for r in some.records for layer in evaluate(some.rows, r.values)[0] for v in layer]
    spelt = {(v % m).to_bytes(size, "little") for v in secrets for m, size in ((ORDER, 32), (1 << 64, 8)) if abs(v) > 1}
    spelt |= {rho.to_bytes(32, "little") for r in (*some.records, *some.rows[0], *some.rows[1]) for rho in [r.rho]}
    for outcome in runs:
        for channel in outcome.channels:
            for _, data in channel.frames:
                assert not any(data[i : i + len(s)] == s for s in spelt for i in range(0, len(data), 8))


def test_parties_alternate_so_that_full_buffers_cannot_stall_them() -> None:
    """Between two frames that A sends without waiting, B has nothing to send, or the other way round."""
    _, runs = two_runs((3, 2, 1))
    of_A, of_B = (set(by_label(runs[0], place)) for place in (0, 1))
    assert of_A ^ of_B == {"ring key", "ring.input.A", "ring.input.B", "blind check"}


# -- a peer that does not play along ----------------------------------------------------------------------------------


def frames_of(widths: tuple[int, ...], place: int) -> list[tuple[str, int]]:
    return [(label, len(data)) for label, data in two_runs(widths)[1][0].channels[place].frames]


def at_frame(number: int, change: Tap) -> Tap:
    """`change` for the frame with this number only."""
    count = iter(range(10**6))
    return lambda label, data: change(label, data) if next(count) == number else data


@pytest.mark.parametrize("place", [0, 1], ids=["A", "B"])
@pytest.mark.parametrize("widths", SMALL)
def test_one_flipped_bit_anywhere_ends_the_session_or_has_no_effect(widths: tuple[int, ...], place: int) -> None:
    """No party gets a result that is not the network's. Whether a changed product with a bit of the other's shows is
    that bit: the selective failure for which a pair is suspended."""
    some, _ = two_runs(widths)
    for number, (label, _) in enumerate(frames_of(widths, place)):
        tap = at_frame(number, lambda label, data: bytes([data[0] ^ 1]) + data[1:])
        outcome = run(some, timeout=5, **{"tap_A" if place == 0 else "tap_B": tap})  # type: ignore[arg-type]
        victim = (outcome.of_B, outcome.of_A)[place]
        assert isinstance(victim, BatchResult | SessionBroken | VerificationFailed)
        if isinstance(victim, BatchResult):
            assert label.startswith("ring") or label == "bits"
            assert verify_joint(some.statement, victim.proof) == victim.answers
            assert opened(some, outcome) == some.answers


@pytest.mark.parametrize("widths", SMALL)
def test_a_frame_of_another_size_or_label_ends_the_session_wherever_it_comes(widths: tuple[int, ...]) -> None:
    some, _ = two_runs(widths)
    for number in range(len(frames_of(widths, 1))):
        outcome = run(some, tap_B=at_frame(number, lambda label, data: data[:-1]), timeout=5)
        assert isinstance(outcome.of_A, SessionBroken) and outcome.of_A.check == "mpc.frame"


class GaveUp(SessionBroken):
    """What a peer's own trouble looks like."""


@pytest.mark.parametrize("widths", SMALL)
def test_a_peer_that_gives_up_ends_the_session_wherever_it_does(widths: tuple[int, ...]) -> None:
    some, _ = two_runs(widths)

    def give_up(label: str, data: bytes) -> bytes:
        raise GaveUp("mpc.test", "no more")

    for number in range(len(frames_of(widths, 1))):
        outcome = run(some, tap_B=at_frame(number, give_up), timeout=5)
        assert outcome.checks == ("mpc.aborted", "mpc.test")
        assert "B gave up: mpc.test: no more" in str(outcome.of_A)


def test_a_peer_that_stalls_ends_the_session() -> None:
    some = case((2, 1))
    for role, secret in (("A", some.records), ("B", some.rows)):
        channel = memory_channels(timeout=0.05)["AB".index(role)]
        correlations = Correlations(role, some.plan, deal(some.plan)["AB".index(role)])  # type: ignore[arg-type]
        with pytest.raises(SessionBroken) as broken:
            prove_batch(role, some.statement, secret, channel, correlations)  # type: ignore[arg-type]
        assert broken.value.check == "mpc.stalled"


def off_the_subgroup() -> bytes:
    """A point of the curve whose order is not r."""
    for x in range(1, 100):
        data = bytes([0x80]) + x.to_bytes(47, "big")
        try:
            ARKWORKS.decode(data)
        except DecodeError as error:
            if "subgroup" in str(error):
                return data
    raise AssertionError("no such point")


NO_POINTS = {"off the subgroup": off_the_subgroup(), "identity": b"\xc0" + bytes(47), "no flag": bytes(48)}


@pytest.mark.parametrize("bad", NO_POINTS.values(), ids=NO_POINTS)
@pytest.mark.parametrize("label", ["commitments", "masks", "blind check"])
def test_what_is_no_point_of_the_group_ends_the_session(label: str, bad: bytes) -> None:
    some = case((2, 1))
    calls = iter(range(100))

    def tap(name: str, data: bytes) -> bytes:
        # The first frame called masks holds scalars.
        if name == label and (label != "masks" or next(calls) == 1):
            return data[:-48] + bad
        return data

    for party in ("tap_A", "tap_B"):
        calls = iter(range(100))
        outcome = run(some, timeout=2, **{party: tap})
        victim = outcome.of_B if party == "tap_A" else outcome.of_A
        if (label, party) != ("blind check", "tap_B"):  # which is A's to send
            assert isinstance(victim, SessionBroken) and victim.check == "mpc.point"


@pytest.mark.parametrize("label", ["bits", "relu", "answers", "masks", "responses", "tau"])
def test_a_scalar_that_is_not_reduced_ends_the_session(label: str) -> None:
    some = case((2, 2, 1))

    def tap(name: str, data: bytes) -> bytes:
        return data[:-32] + ORDER.to_bytes(32, "little") if name == label else data

    outcome = run(some, tap_B=tap, timeout=2)
    assert isinstance(outcome.of_A, SessionBroken) and outcome.of_A.check == "mpc.scalar"


def test_parties_that_believe_in_different_statements_do_not_agree() -> None:
    some = case((3, 2, 1))
    for other in (
        replace(some, statement=replace(some.statement, session=bytes(32))),
        replace(some, statement=replace(some.statement, head_size=9)),
        replace(some, statement=replace(some.statement, output_names=("y1",))),
    ):
        outcome = run(some, other=other, timeout=2)
        assert not isinstance(outcome.of_A, BatchResult) and not isinstance(outcome.of_B, BatchResult)
        assert "joint.blind-check" in outcome.checks
