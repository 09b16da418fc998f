"""Proof S: what zksk proves, both verifiers judge alike, and neither takes anything else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, PrivacyError, UsageError, VerificationFailed
from privacy.zk import representation
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import commitment_key
from privacy.zk.representation import (
    Equation,
    LinearRepresentation,
    RepresentationProof,
    equality_of_openings,
    opening,
    opening_secrets,
    zero_weight,
)

pytest.importorskip("zksk")
sigma = pytest.importorskip("privacy.zk.sigma")

CONTEXT = bytes(range(32))
VALUES = [3, -5, 0, ORDER - 1]
KEY, OTHER_KEY = commitment_key("test", 4), commitment_key("other", 4)
C, D = KEY.commit(VALUES, 11), OTHER_KEY.commit(VALUES, -12)
G, H = KEY.points[0], KEY.blinding

STATEMENTS = {
    "opening": (opening(KEY, C), opening_secrets(VALUES, 11)),
    "zero weight": (zero_weight(KEY, C, 2), opening_secrets(VALUES, 11)),
    "equality of openings": (equality_of_openings(KEY, C, OTHER_KEY, D), opening_secrets(VALUES, 11, -12)),
    "one term": (LinearRepresentation((Equation(ARKWORKS.multiply(G, 7), ((G, "x"),)),)), {"x": 7}),
    "one secret twice in one equation": (
        LinearRepresentation((Equation(ARKWORKS.msm([G, H], [7, 7]), ((G, "x"), (H, "x"))),)),
        {"x": 7},
    ),
    "one generator twice": (
        LinearRepresentation((Equation(ARKWORKS.multiply(G, 9), ((G, "x"), (G, "y"))),)),
        {"x": 7, "y": 2},
    ),
    "the neutral target": (
        LinearRepresentation((Equation(ARKWORKS.identity(), ((G, "x"), (G, "y"))),)),
        {"x": 7, "y": -7},
    ),
}
PROOFS = {name: sigma.prove_representation(*statement, CONTEXT) for name, statement in STATEMENTS.items()}


def judge(statement, proof: bytes, context: bytes = CONTEXT) -> type | None:
    """What both verifiers say: None, or the class of their error. They must agree."""
    verdicts = []
    for verify in (representation.verify_representation, sigma.verify_representation):
        try:
            verify(statement, proof, context)
            verdicts.append(None)
        except PrivacyError as error:
            verdicts.append(type(error))
    assert verdicts[0] is verdicts[1]
    return verdicts[0]


def in_reference_group(statement: LinearRepresentation) -> LinearRepresentation:
    def move(point):
        return REFERENCE.import_affine(ARKWORKS.export_affine(point))

    return LinearRepresentation(
        tuple(Equation(move(e.target), tuple((move(p), name) for p, name in e.terms)) for e in statement.equations),
        REFERENCE,
    )


def words(proof: bytes) -> list[int]:
    return [int.from_bytes(proof[i : i + 32], "little") for i in range(0, len(proof), 32)]


def joined(values: list[int]) -> bytes:
    return b"".join(v.to_bytes(32, "little") for v in values)


@pytest.mark.parametrize("name", STATEMENTS)
def test_true_statement_is_proved_and_both_verifiers_accept(name):
    statement, secrets = STATEMENTS[name]
    assert judge(statement, PROOFS[name]) is None
    assert len(PROOFS[name]) == 32 * (1 + len(statement.names()))
    assert judge(statement, sigma.prove_representation(statement, secrets, CONTEXT)) is None


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name != "the neutral target"])
def test_reference_backend_accepts_the_same_proofs(name):
    moved = in_reference_group(STATEMENTS[name][0])
    assert judge(moved, PROOFS[name]) is None
    assert judge(moved, PROOFS[name], bytes(32)) is VerificationFailed


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_text_is_zksk_s(name):
    statement, _ = STATEMENTS[name]
    secrets = {secret: sigma.Secret(name=secret) for secret in statement.names()}
    assert statement.proof_id() == str(sigma._zksk_statement(statement, secrets).get_proof_id())


@pytest.mark.parametrize("equations", [15, 16, 17])
def test_hash_agrees_around_the_short_array_limit(equations):
    targets = [ARKWORKS.multiply(G, i + 1) for i in range(equations)]
    statement = LinearRepresentation(tuple(Equation(t, ((G, f"x{i}"),)) for i, t in enumerate(targets)))
    proof = sigma.prove_representation(statement, {f"x{i}": i + 1 for i in range(equations)}, CONTEXT)
    assert judge(statement, proof) is None


@pytest.mark.parametrize("terms", [1, 2, 620, 700])
def test_hash_agrees_at_every_length_of_the_statement_text(terms):
    # One term gives a text below 2^8 characters, 620 one below 2^16, 700 one above.
    key = commitment_key("test", terms)
    statement = LinearRepresentation((Equation(key.points[0], tuple((p, f"x{i}") for i, p in enumerate(key.points))),))
    proof = sigma.prove_representation(statement, {f"x{i}": int(i == 0) for i in range(terms)}, CONTEXT)
    assert judge(statement, proof) is None
    lengths = {1: range(1 << 8), 2: range(1 << 8, 1 << 16), 620: range(1 << 15, 1 << 16), 700: range(1 << 16, 1 << 17)}
    assert len(statement.proof_id()) in lengths[terms]


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_scalar_of_a_proof_counts(name):
    statement, _ = STATEMENTS[name]
    good = words(PROOFS[name])
    for place in range(len(good)):
        changed = list(good)
        changed[place] = (changed[place] + 1) % ORDER
        assert judge(statement, joined(changed)) is VerificationFailed
    assert judge(statement, joined([0] * len(good))) is VerificationFailed


@pytest.mark.parametrize("name", ["opening", "zero weight", "equality of openings"])
def test_order_of_the_responses_counts(name):
    c, *z = words(PROOFS[name])
    assert judge(STATEMENTS[name][0], joined([c, *reversed(z)])) is VerificationFailed


@pytest.mark.parametrize("name", STATEMENTS)
def test_scalar_shifted_by_the_order_is_refused(name):
    statement, _ = STATEMENTS[name]
    good = words(PROOFS[name])
    for place in range(len(good)):
        changed = list(good)
        changed[place] += ORDER
        assert judge(statement, joined(changed)) is DecodeError


@pytest.mark.parametrize("name", STATEMENTS)
def test_missing_and_extra_bytes_are_refused(name):
    statement, _ = STATEMENTS[name]
    good = PROOFS[name]
    for data in (b"", good[:-1], good[:-32], good[:32], good + b"\0", good + bytes(32), good + good[-32:], good + good):
        assert judge(statement, data) is DecodeError


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(min_size=64, max_size=64)))
def test_decoder_is_total(data):
    statement, _ = STATEMENTS["one term"]
    try:
        assert RepresentationProof.decode(data, statement).encode() == data
    except DecodeError:
        assert len(data) != 64 or max(words(data)) >= ORDER
    assert judge(statement, data) in (DecodeError, VerificationFailed)


@pytest.mark.parametrize("name", STATEMENTS)
def test_proof_is_bound_to_its_context(name):
    statement, _ = STATEMENTS[name]
    for place in (0, 31):
        other = bytearray(CONTEXT)
        other[place] ^= 1
        assert judge(statement, PROOFS[name], bytes(other)) is VerificationFailed


@pytest.mark.parametrize("context", [b"", bytes(31), bytes(33), CONTEXT.hex().encode()])
def test_context_that_is_no_digest_is_refused(context):
    statement, secrets = STATEMENTS["opening"]
    assert judge(statement, PROOFS["opening"], context) is UsageError
    with pytest.raises(UsageError, match="digest"):
        sigma.prove_representation(statement, secrets, context)


def altered(statement: LinearRepresentation):
    """Every part of a statement altered in turn, in ways that keep the number of secrets."""
    for e, equation in enumerate(statement.equations):

        def put(new, e=e):
            equations = (*statement.equations[:e], new, *statement.equations[e + 1 :])
            return dataclasses.replace(statement, equations=equations)

        yield put(dataclasses.replace(equation, target=ARKWORKS.add(equation.target, H)))
        yield put(dataclasses.replace(equation, target=ARKWORKS.negate(equation.target)))
        for t, (point, name) in enumerate(equation.terms):
            terms = (*equation.terms[:t], (ARKWORKS.add(point, point), name), *equation.terms[t + 1 :])
            yield put(dataclasses.replace(equation, terms=terms))
        if len(equation.terms) > 1:
            yield put(dataclasses.replace(equation, terms=equation.terms[::-1]))
    if len(statement.equations) > 1:
        yield dataclasses.replace(statement, equations=statement.equations[::-1])
    yield dataclasses.replace(statement, equations=(*statement.equations, statement.equations[0]))


@pytest.mark.parametrize("name", ["opening", "zero weight", "equality of openings", "one term"])
def test_every_part_of_the_statement_counts(name):
    statement, _ = STATEMENTS[name]
    variants = list(altered(statement))
    assert len(variants) >= 3
    for variant in variants:
        assert variant.proof_id() != statement.proof_id()
        assert judge(variant, PROOFS[name]) is VerificationFailed


def test_names_are_labels_only_but_merging_them_is_another_statement():
    two = LinearRepresentation((Equation(ARKWORKS.msm([G, H], [7, 7]), ((G, "x"), (H, "y"))),))
    proof = sigma.prove_representation(two, {"x": 7, "y": 7}, CONTEXT)
    renamed = LinearRepresentation((Equation(two.equations[0].target, ((G, "a"), (H, "b"))),))
    assert judge(renamed, proof) is None
    merged, _ = STATEMENTS["one secret twice in one equation"]
    assert judge(merged, proof) is DecodeError
    assert judge(merged, proof[:64]) is VerificationFailed


def cheat(monkeypatch, statement, secrets) -> bytes:
    """Run the prover on a false statement, as a cheater would who removed its check."""
    monkeypatch.setattr(LinearRepresentation, "satisfied_by", lambda *_: True)
    return sigma.prove_representation(statement, secrets, CONTEXT)


def test_attack_weight_that_is_not_zero(monkeypatch):
    for index in (0, 1, 3):
        statement = zero_weight(KEY, C, index)
        with pytest.raises(UsageError, match="nothing to prove"):
            sigma.prove_representation(statement, opening_secrets(VALUES, 11), CONTEXT)
        with monkeypatch.context() as patch:
            proof = cheat(patch, statement, opening_secrets(VALUES, 11))
        assert judge(statement, proof) is VerificationFailed


def test_attack_zero_weight_proof_of_another_index_or_commitment():
    twice_zero = KEY.commit([0, 4, 0, 5], 1)
    proof = sigma.prove_representation(zero_weight(KEY, twice_zero, 0), opening_secrets([0, 4, 0, 5], 1), CONTEXT)
    assert judge(zero_weight(KEY, twice_zero, 0), proof) is None
    assert judge(zero_weight(KEY, twice_zero, 2), proof) is VerificationFailed
    assert judge(zero_weight(KEY, C, 0), proof) is VerificationFailed
    assert judge(zero_weight(OTHER_KEY, twice_zero, 0), proof) is VerificationFailed


def test_attack_commitments_to_different_vectors(monkeypatch):
    different = OTHER_KEY.commit([3, -5, 1, ORDER - 1], -12)
    statement = equality_of_openings(KEY, C, OTHER_KEY, different)
    assert judge(statement, PROOFS["equality of openings"]) is VerificationFailed
    assert judge(statement, cheat(monkeypatch, statement, opening_secrets(VALUES, 11, -12))) is VerificationFailed


def test_attack_two_openings_passed_off_as_equal():
    # Honest proofs of the two openings with separate secrets are no proof with shared ones.
    different = OTHER_KEY.commit([4, -5, 0, 1], 5)
    (first,), (second,) = opening(KEY, C).equations, opening(OTHER_KEY, different).equations
    renamed = tuple((point, f"other {name}") for point, name in second.terms)
    separate = LinearRepresentation((first, Equation(different, renamed)))
    secrets = opening_secrets(VALUES, 11)
    secrets |= {f"other {name}": value for name, value in opening_secrets([4, -5, 0, 1], 5).items()}
    proof = sigma.prove_representation(separate, secrets, CONTEXT)
    assert judge(separate, proof) is None
    statement = equality_of_openings(KEY, C, OTHER_KEY, different)
    assert judge(statement, proof) is DecodeError
    c, *z = words(proof)
    assert judge(statement, joined([c, *z[:5], z[9]])) is VerificationFailed


def test_attack_opening_without_the_blinding(monkeypatch):
    statement = opening(KEY, C)
    proof = cheat(monkeypatch, statement, opening_secrets(VALUES, 12))
    assert judge(statement, proof) is VerificationFailed


def test_attack_challenge_chosen_before_the_commitment():
    # z and c first, A = sum z G - c C after: the equation holds, the hash does not.
    statement, _ = STATEMENTS["opening"]
    assert judge(statement, joined([1, 2, 3, 4, 5, 6])) is VerificationFailed


def test_prover_refuses_what_it_cannot_prove():
    statement, secrets = STATEMENTS["opening"]
    with pytest.raises(UsageError, match="no value for secret 'v1'"):
        sigma.prove_representation(statement, {k: v for k, v in secrets.items() if k != "v1"}, CONTEXT)
    with pytest.raises(UsageError, match="nothing to prove"):
        sigma.prove_representation(statement, secrets | {"rho0": 12}, CONTEXT)


def test_secrets_are_taken_mod_the_order():
    statement, secrets = STATEMENTS["opening"]
    shifted = {name: value + 3 * ORDER for name, value in secrets.items()}
    assert judge(statement, sigma.prove_representation(statement, shifted, CONTEXT)) is None


def test_fresh_masks_in_every_proof():
    statement, secrets = STATEMENTS["opening"]
    proofs = [words(sigma.prove_representation(statement, secrets, CONTEXT)) for _ in range(10)]
    everything = [scalar for proof in proofs for scalar in proof]
    assert len(set(everything)) == len(everything)
    # A mask that is not uniform shows as a secret that two proofs give away: z - z' = (c - c') x.
    (c0, *z0), (c1, *z1) = proofs[:2]
    leaked = [(a - b) * pow(c0 - c1, -1, ORDER) % ORDER for a, b in zip(z0, z1, strict=True)]
    assert not set(leaked) & {value % ORDER for value in secrets.values()}


def test_masks_come_from_the_operating_system_not_from_petlib(monkeypatch):
    def refuse(self):
        raise AssertionError("petlib's generator was asked")

    monkeypatch.setattr(sigma.Bn, "random", refuse)
    for name, (statement, secrets) in STATEMENTS.items():
        assert judge(statement, sigma.prove_representation(statement, secrets, CONTEXT)) is None, name


def test_challenge_is_always_a_scalar():
    # Without the restart, 13 of 24 challenges would not be below r: 60 good ones in a row once in 2^67.
    statement, secrets = STATEMENTS["one term"]
    for _ in range(60):
        assert words(sigma.prove_representation(statement, secrets, CONTEXT))[0] < ORDER


@pytest.mark.parametrize("answer", [1, "yes", None, False])
def test_only_a_literal_true_of_zksk_is_acceptance(monkeypatch, answer):
    monkeypatch.setattr(sigma.DLRep, "verify", lambda *_: answer)
    with pytest.raises(VerificationFailed, match=r"representation\.zksk"):
        sigma.verify_representation(STATEMENTS["opening"][0], PROOFS["opening"], CONTEXT)


def test_errors_of_zksk_are_translated(monkeypatch):
    def fail(*_):
        raise RuntimeError("inside zksk")

    monkeypatch.setattr(sigma.DLRep, "verify", fail)
    with pytest.raises(VerificationFailed, match="inside zksk"):
        sigma.verify_representation(STATEMENTS["opening"][0], PROOFS["opening"], CONTEXT)


def test_statements_that_bind_nothing_are_refused():
    for equations in (
        (),
        (Equation(C, ()),),
        (Equation(C, ((G, "x"),)), Equation(D, ())),
        (Equation(C, ((G, "x"), (ARKWORKS.identity(), "y"))),),
    ):
        with pytest.raises(UsageError):
            LinearRepresentation(equations)


@pytest.mark.parametrize("index", [-1, 4, 100])
def test_zero_weight_of_a_coordinate_that_does_not_exist_is_refused(index):
    with pytest.raises(UsageError, match="zero weight"):
        zero_weight(KEY, C, index)


def test_equality_under_keys_that_do_not_fit_is_refused():
    with pytest.raises(UsageError, match="keys of 4 and 3"):
        equality_of_openings(KEY, C, commitment_key("other", 3), D)
    with pytest.raises(UsageError, match="keys"):
        equality_of_openings(KEY, C, commitment_key("other", 4, REFERENCE), D)


def run_python(code: str, *flags: str, **environment: str) -> str:
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_auditor_s_verifier_imports_neither_zksk_nor_petlib():
    loaded = run_python("import sys, privacy.zk.representation; print(*sys.modules)").split()
    assert "privacy.zk.representation" in loaded
    assert not {name.split(".")[0] for name in loaded} & {"zksk", "petlib", "msgpack", "tenseal", "torch"}


def test_import_of_zksk_warns_about_nothing_even_when_it_is_compiled(tmp_path):
    run_python("import privacy.zk.sigma", "-W", "error", PYTHONPYCACHEPREFIX=str(tmp_path))
