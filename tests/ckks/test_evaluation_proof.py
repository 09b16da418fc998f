"""Evaluation proofs: what is honest verifies, sizes are as announced, every public input is bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.ckks import evaluation_prover
from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.evaluation_proof import (
    EvaluationProof,
    EvaluationStatement,
    Form,
    OutputStatement,
    Rows,
    absorb_first,
    absorb_second,
    absorb_third,
)
from privacy.ckks.evaluation_verifier import VerifiedEvaluation
from privacy.ckks.packing import Packing
from privacy.errors import DecodeError, PrivacyError, UsageError, VerificationFailed
from privacy.zk import relations
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.relations import J, LinearProof
from privacy.zk.wire import Reader
from tests.attacks.conftest import Prover, World, make_world

REFUSED = (DecodeError, UsageError, VerificationFailed)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def proof(world: World) -> bytes:
    return world.prove()


@pytest.fixture(scope="module")
def pair() -> World:
    """Two blocks under three outputs."""
    return make_world(blocks=2, outputs=3, count=40, seed=2)


@pytest.fixture(scope="module")
def pair_proof(pair: World) -> bytes:
    return pair.prove()


SHAPES = {
    "columns": {},
    "rows": {"packing": Packing.ROWS},
    "one feature": {"d": 1},
    "one feature in rows": {"d": 1, "packing": Packing.ROWS},
    "one patient": {"count": 1},
    "one patient in rows that fills the ring": {"d": 64, "packing": Packing.ROWS, "count": 1},
    "partial block": {"count": 37},
    "partial block in rows": {"packing": Packing.ROWS, "count": 5},
    "three blocks": {"blocks": 3},
    "a later block": {"first_block": 7, "count": 9},
    "four outputs": {"outputs": 4},
    "two blocks, three outputs, rows": {"blocks": 2, "outputs": 3, "packing": Packing.ROWS, "d": 5},
    "coarse grid": {"grid_bits": 0, "count": 2},
    "another degree": {"N": 256, "d": 7},
}


def answers_within_the_attested_error(world: World, verified: VerifiedEvaluation) -> None:
    """For every patient of every block and output, in integers."""
    D, outputs = world.statement.params.D, len(world.outputs)
    # The clinic's own encryption noise, below 10 a coefficient, is not the server's error.
    for b, result in enumerate(world.results):
        w = world.outputs[b % outputs]
        wanted = world.values[b // outputs].astype(object) @ np.array(w.weights, dtype=object) + w.bias
        own = 10 * sum(abs(x) for x in w.weights)
        off = max(abs(a - int(x)) for a, x in zip(world.keys.decrypt_integers_unverified(result), wanted, strict=True))
        assert off <= verified.error * (1 << D) + own
        assert verified.error <= 2.0 ** -(world.statement.grid_bits + 6)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_honest_proof_verifies_and_the_answers_are_within_its_error(shape: str) -> None:
    world = make_world(**SHAPES[shape], seed=len(shape))
    proof = world.prove()
    assert len(proof) == EvaluationProof.size(world.statement)
    decoded = EvaluationProof.decode(world.statement, proof)
    assert decoded.encode(world.statement) == proof
    verified = world.verify(proof)
    assert verified.statement is world.statement
    assert verified.blur_bits == world.statement.bounds.f
    answers_within_the_attested_error(world, verified)


@pytest.mark.parametrize("packing", [Packing.COLUMNS, Packing.ROWS])
def test_the_default_parameter_set(packing: Packing) -> None:
    world = make_world(N=4096, d=30, count=569 if packing is Packing.COLUMNS else 136, packing=packing)
    proof = world.prove()
    answers_within_the_attested_error(world, world.verify(proof))
    assert len(proof) == EvaluationProof.size(world.statement) <= 175_000


def test_sizes_at_the_default_parameter_set() -> None:
    """At most 175 kB for the first instance and 2.6 kB for each further one, whatever the inputs."""
    statement = make_world(N=4096, d=1, count=1).statement
    digest = bytes(32)

    def size(blocks: int, d: int = 30, count: int = 4096) -> int:
        return EvaluationProof.size(
            replace(
                statement,
                d=d,
                count=count,
                blocks=blocks,
                input_digests=(digest,) * (d * blocks),
                result_digests=(digest,) * blocks,
            )
        )

    assert size(1) <= 175_000
    assert size(2) <= 175_000 + 2_600
    for blocks in (3, 16, 64):
        assert size(blocks) - size(2) <= 2_600 * (blocks - 2)
    # The proof does not grow with the patients, and with the features by 32 bytes each.
    assert size(1, count=1) <= size(1, count=4096) + 200
    assert size(1, d=31) - size(1, d=30) <= 64


def test_two_provers_of_one_statement_share_no_message(world: World, proof: bytes) -> None:
    one, other = (EvaluationProof.decode(world.statement, p) for p in (proof, world.prove()))
    assert ARKWORKS.encode(one.instances[0].C) != ARKWORKS.encode(other.instances[0].C)
    assert ARKWORKS.encode(one.instances[0].C_K) != ARKWORKS.encode(other.instances[0].C_K)
    for z, y in zip(one.opening.responses, other.opening.responses, strict=True):
        assert not set(z) & set(y)


def test_no_instance_reuses_masks_of_another(pair: World, pair_proof: bytes) -> None:
    decoded = EvaluationProof.decode(pair.statement, pair_proof)
    points = [ARKWORKS.encode(p) for x in decoded.instances for p in (x.C, x.C_K)]
    assert len(set(points)) == len(points)
    assert len({x.z0 for x in decoded.instances}) == len(decoded.instances)


@pytest.mark.parametrize("mask", ["nu", "mu0", "mu1", "t4"])
def test_an_attempt_that_aborts_leaves_no_trace(world: World, monkeypatch: pytest.MonkeyPatch, mask: str) -> None:
    """A value outside the interval that hides it restarts, and all commitments and masks that are shown are new."""
    bounds = world.statement.bounds
    edge = {"nu": bounds.Mu, "mu0": bounds.M0, "mu1": bounds.M1, "t4": bounds.B4}[mask]
    seen: list[list[bytes]] = []
    drawn: list[object] = []

    def record(transcript, group, commitments):
        seen.append([group.encode(C) for C in commitments])
        absorb_first(transcript, group, commitments)

    draw = evaluation_prover._draw_masks

    def widest_first(statement, stream):
        masks = draw(statement, stream)
        if not drawn:
            # The first attempt's mask is at the edge, so that some projection falls out of the interval.
            getattr(masks, mask)[:] = [edge] * len(getattr(masks, mask))
        drawn.append(masks)
        return masks

    monkeypatch.setattr(evaluation_prover, "absorb_first", record)
    monkeypatch.setattr(evaluation_prover, "_draw_masks", widest_first)
    proof = world.prove()
    assert len(seen) >= 2
    assert not set(seen[0]) & set(seen[-1])
    shown = EvaluationProof.decode(world.statement, proof)
    assert [ARKWORKS.encode(x.C) for x in shown.instances] == seen[-1]
    first, last = drawn[0], drawn[-1]
    assert not set(first.mu0.tolist()) & set(last.mu0.tolist())
    assert not set(first.t4) & set(last.t4)
    assert (first.rho, first.rho_quotients) != (last.rho, last.rho_quotients)
    world.verify(proof)


def test_published_projections_stay_inside_the_interval_that_hides_them(world: World, pair: World) -> None:
    for w in (world, pair):
        bounds = w.statement.bounds
        for x in EvaluationProof.decode(w.statement, w.prove()).instances:
            for z, M, T in ((x.z0, bounds.M0, bounds.T0), (x.z1, bounds.M1, bounds.T1), (x.zu, bounds.Mu, bounds.Tu)):
                assert max(map(abs, z)) <= M - T
            assert max(map(abs, x.xi)) <= bounds.B4 - bounds.honest4


def test_a_prover_whose_evaluation_is_of_other_weights_gets_no_proof(world: World) -> None:
    wrong = replace(world.outputs[0], bias=world.outputs[0].bias + 1)
    with pytest.raises(UsageError, match="does not satisfy"):
        replace(world, outputs=(wrong,)).prove()


def test_a_wrong_number_of_evaluations_is_a_usage_error(pair: World) -> None:
    with pytest.raises(UsageError, match="one evaluation an instance"):
        replace(pair, evaluations=pair.evaluations[:-1]).prove()


def test_noise_outside_the_protocols_range_restarts_to_the_end(world: World, monkeypatch) -> None:
    """A blur wider than declared would be visible in z0: the prover stops instead."""
    monkeypatch.setattr(evaluation_prover, "_MAX_ATTEMPTS", 3)
    noise = world.evaluations[0].noise
    wide = replace(noise, e0=noise.e0 + (1 << 50))
    with pytest.raises(UsageError, match="restarted too often"):
        replace(world, evaluations=(replace(world.evaluations[0], noise=wide),)).prove()


def test_neither_side_uses_a_public_key_other_than_the_certified_one(world: World, proof: bytes) -> None:
    public = world.keys.public
    other = public.p0.copy()
    other[0, 0] ^= np.uint64(1)
    with pytest.raises(VerificationFailed, match=r"evaluation\.public-key: p0"):
        world.verify(proof, p0=other)
    for p1 in (np.zeros_like(public.p1), np.roll(public.p1, 1, axis=1), public.p1[:, :32]):
        with pytest.raises(VerificationFailed, match=r"evaluation\.public-key: p1"):
            world.verify(proof, p1=p1)
        # The prover refuses as well: a p1 of the clinic's choice gives away all weights.
        with pytest.raises(VerificationFailed, match=r"evaluation\.public-key: p1"):
            evaluation_prover.prove_evaluation(
                world.statement, public.p0, p1, world.virtual, world.evaluations, world.outputs
            )


def test_only_the_verifier_makes_a_verified_evaluation(world: World, proof: bytes) -> None:
    with pytest.raises(VerificationFailed, match="only verify_evaluation"):
        VerifiedEvaluation(world.statement, 0, 0, object())
    verified = world.verify(proof)
    with pytest.raises((TypeError, ValueError, PrivacyError)):
        replace(verified, blur_bits=99)


# Every public input is bound.


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def altered_outputs(world: World) -> Iterator[tuple[str, tuple[OutputStatement, ...]]]:
    """One change for every field of OutputStatement, and of their number and order."""
    first, *rest = world.statement.outputs
    other_point = ARKWORKS.encode(ARKWORKS.hash_to_curve(b"other weights"))
    changes = {"name": "other", "b": first.b + 1, "b_bias": first.b_bias - 1, "commitment": other_point}
    assert set(changes) == {f.name for f in fields(OutputStatement)}, "a new field needs a test"
    for name, value in changes.items():
        yield f"outputs.{name}", (replace(first, **{name: value}), *rest)
    yield "outputs swapped", world.statement.outputs[::-1]
    yield "outputs merged", (first, *rest[:-1])
    yield "an output twice", (first, first, *rest[1:])


def altered(world: World) -> Iterator[tuple[str, dict[str, object]]]:
    """At least one change for every field of EvaluationStatement."""
    s = world.statement
    numbers = {"d": s.d + 1, "count": s.count - 1, "first_block": 1, "blocks": s.blocks + 1}
    numbers |= {"grid_bits": s.grid_bits - 1, "key_number": 2, "head_size": s.head_size + 1}
    ids = ["key_id", "p0_digest", "key_certificate", "model_id", "model_certificate", "schema", "records_id"]
    ids += ["handles", "head_root"]
    assert {"params", "packing", "clinic", "outputs", "input_digests", "result_digests", *numbers, *ids} == {
        f.name for f in fields(EvaluationStatement)
    }, "a new field needs a test"
    p = s.params
    for params in (
        replace(p, name="other"),
        replace(p, primes=p.primes[::-1]),
        replace(p, special_prime=p.special_prime + 2),
        replace(p, input_scale_bits=p.SX - 1),
        replace(p, weight_scale_bits=p.SW + 1),
        replace(p, input_scale_bits=p.SX + 1, weight_scale_bits=p.SW - 1),
        replace(p, N=2 * p.N),
    ):
        yield f"params {params}", {"params": params}
    yield "packing", {"packing": Packing.ROWS}
    yield "packing and digests", {"packing": Packing.ROWS, "input_digests": s.input_digests[: s.blocks]}
    yield "clinic", {"clinic": "clinic-b"}
    for name, value in numbers.items():
        yield name, {name: value}
    yield "d and digests", {"d": s.d + 1, "input_digests": (*s.input_digests, *s.input_digests[: s.blocks])}
    yield (
        "one block less",
        {
            "blocks": s.blocks - 1,
            "input_digests": s.input_digests[: len(s.input_digests) // s.blocks * (s.blocks - 1)],
            "result_digests": s.result_digests[: len(s.result_digests) // s.blocks * (s.blocks - 1)],
        },
    )
    for name in ids:
        yield name, {name: flipped(getattr(s, name))}
    yield "two ids swapped", {"key_id": s.model_id, "model_id": s.key_id}
    for name in ("input_digests", "result_digests"):
        digests = getattr(s, name)
        for i in range(len(digests)):
            yield f"{name}[{i}]", {name: (*digests[:i], flipped(digests[i]), *digests[i + 1 :])}
        yield f"{name} reversed", {name: digests[::-1]}
        yield f"{name} rotated", {name: (*digests[1:], digests[0])}
        yield f"{name} shortened", {name: digests[:-1]}
    for name, outputs in altered_outputs(world):
        yield name, {"outputs": outputs}


def test_every_field_of_the_statement_is_bound(pair: World, pair_proof: bytes) -> None:
    pair.verify(pair_proof)
    honest = pair.statement.start().digest()
    tried = 0
    for name, change in altered(pair):
        try:
            other = replace(pair.statement, **change)
            other.bounds  # noqa: B018
        except (UsageError, VerificationFailed):
            continue  # not even a statement
        tried += 1
        assert other.start().digest() != honest, name
        with pytest.raises(REFUSED):
            pair.verify(pair_proof, statement=other)
    assert tried >= 40


def test_a_field_that_only_the_transcript_holds_is_refused_by_the_opening(pair: World, pair_proof: bytes) -> None:
    """Ids that the verifier cannot recompute here are bound by Fiat-Shamir alone, and that suffices."""
    for name in ("key_certificate", "model_id", "model_certificate", "schema", "records_id", "handles", "head_root"):
        other = replace(pair.statement, **{name: bytes(32)})
        with pytest.raises(VerificationFailed, match=r"linear\."):
            pair.verify(pair_proof, statement=other)


def test_the_arrays_are_those_of_the_digests(pair: World, pair_proof: bytes) -> None:
    for block in range(2):
        for place in range(pair.statement.d):
            stored = [s.copy() for s in pair.stored]
            stored[block][place, 1, 0, 5] ^= np.uint64(1)
            with pytest.raises(VerificationFailed, match=r"evaluation\.inputs"):
                pair.verify(pair_proof, stored=stored)
    with pytest.raises(VerificationFailed, match=r"evaluation\.inputs"):
        pair.verify(pair_proof, stored=pair.stored[::-1])
    with pytest.raises(VerificationFailed, match=r"evaluation\.inputs"):
        pair.verify(pair_proof, stored=[s[:2] for s in pair.stored])
    swapped = [pair.stored[0][[1, 0, 2]], pair.stored[1]]
    with pytest.raises(VerificationFailed, match=r"evaluation\.inputs"):
        pair.verify(pair_proof, stored=swapped)


def test_the_results_are_those_of_the_digests(pair: World, pair_proof: bytes) -> None:
    results = pair.results
    with pytest.raises(VerificationFailed, match=r"evaluation\.results"):
        pair.verify(pair_proof, results=results[::-1])
    for part in ("c0", "c1"):
        array = getattr(results[3], part).copy()
        array[1, 7] ^= np.uint64(1)
        changed = [*results[:3], replace(results[3], **{part: array}), *results[4:]]
        with pytest.raises(VerificationFailed, match=r"evaluation\.results"):
            pair.verify(pair_proof, results=changed)
    moved = replace(results[0], positions=results[0].positions + 1)
    with pytest.raises(VerificationFailed, match=r"evaluation\.positions"):
        pair.verify(pair_proof, results=[moved, *results[1:]])


def test_the_bounds_are_never_read_from_the_proof(world: World, proof: bytes) -> None:
    """A projection beyond its bound fits its field and is refused; B4 too."""
    statement, bounds = world.statement, world.statement.bounds
    decoded = EvaluationProof.decode(statement, proof)
    for name, bound in (("z0", bounds.M0), ("z1", bounds.M1), ("zu", bounds.Mu), ("xi", bounds.B4)):
        for value in (bound + 1, -bound - 1):
            (x,) = decoded.instances
            values = (value, *getattr(x, name)[1:])
            bad = replace(decoded, instances=(replace(x, **{name: values}),)).encode(statement)
            with pytest.raises(VerificationFailed, match=r"evaluation\.shortness"):
                world.verify(bad)
            at_bound = (bound if value > 0 else -bound, *getattr(x, name)[1:])
            edge = replace(decoded, instances=(replace(x, **{name: at_bound}),)).encode(statement)
            with pytest.raises(VerificationFailed, match=r"linear\."):
                world.verify(edge)


# Bytes.


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 20), change=st.integers(1, 255))
def test_no_altered_byte_survives(world: World, proof: bytes, place: int, change: int) -> None:
    data = bytearray(proof)
    data[place % len(data)] ^= change
    with pytest.raises((DecodeError, VerificationFailed)):
        world.verify(bytes(data))


@settings(max_examples=20, deadline=None)
@given(place=st.integers(0, 1 << 20), change=st.integers(1, 255))
def test_no_altered_byte_of_several_instances_survives(pair: World, pair_proof: bytes, place: int, change: int) -> None:
    data = bytearray(pair_proof)
    data[place % len(data)] ^= change
    with pytest.raises((DecodeError, VerificationFailed)):
        pair.verify(bytes(data))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_arbitrary_bytes_are_refused(world: World, proof: bytes, data: bytes, prefix: bool) -> None:
    with pytest.raises(DecodeError):
        EvaluationProof.decode(world.statement, proof[: 24 + len(data)] + data if prefix else data)


def test_truncated_and_trailing_bytes_are_refused(world: World, proof: bytes) -> None:
    for bad in (b"", proof[:-1], proof[:1000], proof + b"\0", proof[1:], proof + proof):
        with pytest.raises(DecodeError):
            world.verify(bad)


def test_points_that_are_none_and_scalars_that_are_not_reduced_are_refused(world: World, proof: bytes) -> None:
    statement, bounds = world.statement, world.statement.bounds
    at_C = 24
    outside = bytes([0x80]) + bytes(46) + bytes([4])
    for place in (at_C, at_C + 48):
        for point in (bytes([0xC0]) + bytes(47), outside, bytes(48), b"\xff" * 48):
            with pytest.raises(DecodeError, match="point"):
                world.verify(proof[:place] + point + proof[place + 48 :])
    opening = len(proof) - LinearProof.size(statement.shapes())
    masks = len(statement.shapes())
    for i in range(masks + 1):  # t and the blindings
        place = opening + 48 * masks + 32 * i
        with pytest.raises(DecodeError, match="group order"):
            world.verify(proof[:place] + ORDER.to_bytes(32, "little") + proof[place + 32 :])
    with pytest.raises(DecodeError, match="group order"):
        world.verify(proof[:-32] + (ORDER + 5).to_bytes(32, "little"))
    # The same residue in another encoding.
    last = int.from_bytes(proof[-32:], "little")
    if last + ORDER < 1 << 256:
        with pytest.raises(DecodeError, match="group order"):
            world.verify(proof[:-32] + (last + ORDER).to_bytes(32, "little"))
    assert bounds.B4 < ORDER


# A second implementation, and a second curve library.


def test_the_plain_integer_prover_and_the_fast_verifier_agree(world: World, pair: World) -> None:
    """The prover of the attack tests shares no projection, quotient or product with the product's."""
    for w in (world, pair, make_world(packing=Packing.ROWS, seed=9)):
        w.verify(Prover(w).prove())


def test_the_reference_backend_accepts_and_refuses_alike() -> None:
    world = make_world(N=16, d=2)
    proof = world.prove()
    world.verify(proof, group=REFERENCE)
    bad = bytearray(proof)
    bad[-40] ^= 1
    with pytest.raises(VerificationFailed, match=r"linear\."):
        world.verify(bytes(bad), group=REFERENCE)
    identity = proof[:24] + bytes([0xC0]) + bytes(47) + proof[72:]
    with pytest.raises(DecodeError):
        world.verify(identity, group=REFERENCE)


def test_rows_cover_P_only_and_follow_every_commitment(world: World) -> None:
    small = make_world(count=5)
    transcript = small.statement.start()
    absorb_first(transcript, ARKWORKS, [ARKWORKS.hash_to_curve(b"C")])
    rows = Rows.draw(transcript, small.statement.params, small.statement.positions)
    assert not rows.R0[:, 5:].any()
    assert rows.R0[:, :5].any()
    other = small.statement.start()
    absorb_first(other, ARKWORKS, [ARKWORKS.hash_to_curve(b"another C")])
    again = Rows.draw(other, small.statement.params, small.statement.positions)
    for name in ("R0", "R1", "Ru"):
        assert not np.array_equal(getattr(rows, name), getattr(again, name))
    assert not np.array_equal(rows.R1, rows.Ru)


def test_every_message_is_absorbed_before_the_next_challenge(pair: World, pair_proof: bytes) -> None:
    """A message that no challenge depends on could be chosen last, to satisfy the one folded equation."""
    instances = EvaluationProof.decode(pair.statement, pair_proof).instances
    moved = ARKWORKS.hash_to_curve(b"moved")

    def digest(absorb, messages) -> bytes:
        transcript = pair.statement.start()
        absorb(transcript, ARKWORKS, messages)
        return transcript.digest()

    for b, x in enumerate(instances):
        others = lambda changed, b=b: [*instances[:b], changed, *instances[b + 1 :]]  # noqa: E731
        first = [i.C for i in instances]
        assert digest(absorb_first, [*first[:b], moved, *first[b + 1 :]]) != digest(absorb_first, first)
        for name in ("z0", "z1", "zu"):
            for place in (0, J - 1):
                values = list(getattr(x, name))
                values[place] += 1
                changed = replace(x, **{name: tuple(values)})
                assert digest(absorb_second, others(changed)) != digest(absorb_second, instances)
        assert digest(absorb_second, others(replace(x, C_K=moved))) != digest(absorb_second, instances)
        for place in range(5):
            values = list(x.xi)
            values[place] = -values[place]
            third = lambda t, _, messages: absorb_third(t, messages)  # noqa: E731
            assert digest(third, others(replace(x, xi=tuple(values)))) != digest(third, instances)


def test_combination_weights_follow_from_every_message(pair: World, pair_proof: bytes) -> None:
    """rho_0 is 1, the others are distinct 128-bit numbers drawn after xi."""
    decoded = EvaluationProof.decode(pair.statement, pair_proof)

    def rho(xi: tuple[int, ...]) -> list[int]:
        transcript = pair.statement.start()
        absorb_third(transcript, [replace(x, xi=xi) for x in decoded.instances])
        rows = Rows.draw(transcript, pair.statement.params, pair.statement.positions)
        return Form(pair.statement, rows, [[0] * (6 * J)] * 5, transcript).rho

    one, other = rho((0,) * 5), rho((1,) * 5)
    assert one[0] == other[0] == 1
    assert len(one) == pair.statement.instances == len(set(one))
    assert not set(one[1:]) & set(other[1:])
    assert all(1 << 64 < x < 1 << 128 for x in one[1:])


def test_responses_of_the_opening_lie_in_the_interval_that_hides_the_witness(world: World, proof: bytes) -> None:
    opening = EvaluationProof.decode(world.statement, proof).opening
    for runs, z in zip(world.statement.shapes(), opening.responses, strict=True):
        at = 0
        for run in runs:
            if run.short:
                T = run.bound << relations.CHALLENGE_BITS
                assert all(T <= x < (1 << 8 * run.width) - T for x in z[at : at + run.count])
            at += run.count
    data = opening.encode(ARKWORKS, world.statement.shapes())
    assert LinearProof.read(Reader("x", data), ARKWORKS, world.statement.shapes()) is not None
    assert J == 160


def test_a_statement_of_the_wrong_shape_is_a_usage_error(world: World) -> None:
    s = world.statement
    for change in (
        {"key_id": b"short"},
        {"outputs": ()},
        {"blocks": 0},
        {"first_block": -1},
        {"input_digests": s.input_digests[:-1]},
        {"result_digests": ()},
        {"result_digests": (b"x",)},
    ):
        with pytest.raises(UsageError):
            replace(s, **change)


def test_results_whose_residues_are_not_reduced_have_no_digest(world: World, proof: bytes) -> None:
    result = world.results[0]
    c1 = result.c1.copy()
    c1[0, 0] += np.uint64(world.statement.params.primes[0])
    with pytest.raises(REFUSED):
        world.verify(proof, results=[ResultCiphertext(result.positions, result.c0, c1)])
