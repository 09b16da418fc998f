"""True statements about encrypted answers are proven and verified; false ones have no honest proof."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from privacy.ckks import disclosure, disclosure_prover
from privacy.ckks.canonical import ResultCiphertext, decode_result, result_digest
from privacy.ckks.disclosure import (
    MAX_ANSWERS,
    Coefficients,
    DisclosedAnswer,
    DisclosureProof,
    DisclosureStatement,
    verify_disclosure,
)
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.ckks.key_certificate import KeyOpenings
from privacy.ckks.keys import ClinicKeys
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.relations import KAPPA, T4_ROWS, J
from tests.support import bundles
from tests.support.encrypted_answers import BASE, STEP, UNIT, Answers, Clinic, clinic, name, small_parameters

Q = BASE.Q
HALF = (Q - 1) // 2


@pytest.fixture(scope="module")
def some() -> Answers:
    """Five answers of three outputs, at all distances from the grid."""
    rng = np.random.default_rng(7)
    return Answers.encrypt(clinic(), *([int(x * UNIT) for x in rng.normal(0, 3, 5)] for _ in range(3)))


@pytest.fixture(scope="module")
def real() -> Clinic:
    """A key of the real parameter set, made by SEAL."""
    material = bundles.key_material()
    return Clinic.of(material.keys, material.certificate, material.openings)


@pytest.fixture(scope="module")
def hundred(real: Clinic) -> Answers:
    return Answers.encrypt(real, [int(x * UNIT) for x in np.random.default_rng(8).normal(0, 3, 100)])


def proven(answers: Answers, statement: DisclosureStatement) -> bytes:
    proof = answers.prove(statement)
    verify_disclosure(statement, proof, answers.lookup)
    return proof


# -- what is true -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exact", "threshold"])
def test_one_answer(some: Answers, kind) -> None:
    for place in range(5):
        proven(some, some.statement(some.answer(place, kind)))


@pytest.mark.parametrize(
    ("count", "kind", "size"),
    [
        (1, "exact", 88_920),
        (1, "threshold", 89_568),
        (16, "exact", 93_125),
        (16, "threshold", 93_893),
        (100, "exact", 116_645),
        (100, "threshold", 118_245),
    ],
)
def test_many_answers_in_one_proof_of_the_size_that_is_documented(hundred: Answers, count: int, kind, size) -> None:
    statement = hundred.statement(*(hundred.answer(place, kind) for place in range(count)))
    assert len(proven(hundred, statement)) == size


def test_everything_in_one_proof(some: Answers) -> None:
    """Both kinds, several results, differences both ways round, out of order."""
    answers = [
        some.answer(4, "threshold", 2),
        some.answer(0, "exact", 0),
        some.answer(0, "threshold", 0),
        some.answer(3, "threshold", 1, versus=0),
        some.answer(3, "exact", 0, versus=2),
        some.answer(1, "exact", 1),
        some.answer(1, "exact", 0, tolerance=70),
    ]
    proven(some, some.statement(*answers))


def test_a_difference_of_two_results(some: Answers) -> None:
    """By how much one class is ahead of another, without saying where either is."""
    for place in range(5):
        proven(some, some.statement(some.answer(place, "exact", 1, versus=2)))
        proven(some, some.statement(some.answer(place, "threshold", 2, versus=0)))


def test_the_most_answers_that_fit(some: Answers) -> None:
    many = Answers.encrypt(clinic("st-anna", 256), [place * UNIT // 100 for place in range(MAX_ANSWERS)])
    told = [many.answer(place, "threshold") for place in range(MAX_ANSWERS)]
    proven(many, many.statement(*told))
    with pytest.raises(UsageError, match="1 to 256 answers, got 257"):
        many.statement(*told, many.answer(0))


def test_another_set_of_positions_than_the_first_ones() -> None:
    """Rows packing publishes every d-th coefficient; the last one of the ring is no exception."""
    at = [2, 5, 8, 62, 63]
    made = clinic()
    result = made.encrypt([(k - 2) * UNIT + 12345 for k in at], at)
    answers = Answers(made, (tuple(range(64)),), (result,))
    told = [answers.answer(k, position=k, value=64 * (k - 2)) for k in at]
    proven(answers, answers.statement(*told))
    with pytest.raises(VerificationFailed, match="does not publish coefficient 3") as caught:
        answers.prove(answers.statement(answers.answer(3)))
    assert caught.value.check == "disclosure.result"
    with pytest.raises(UsageError, match="not true"):
        answers.prove(answers.statement(*told[:4], replace(told[4], position=62)))


@pytest.mark.parametrize(
    "M",
    [17 * STEP, 17 * STEP + 1, 19 * STEP - 1, 19 * STEP, 19 * STEP + 1, 21 * STEP - 2, 21 * STEP - 1],
    ids=["lo", "lo+1", "n-1", "n", "n+1", "hi-2", "hi-1"],
)
def test_the_edges_and_the_middle_of_an_interval(M: int) -> None:
    """In the middle 4 d (w - d) + 1 is a square, of which a search for a prime n - x^2 would find none."""
    answers = Answers.encrypt(clinic(), [M])
    proven(answers, answers.statement(answers.answer(0, value=19, tolerance=2)))


@pytest.mark.parametrize("M", [0, 1, -1, HALF, HALF - 1, -HALF], ids=["0", "1", "-1", "top", "top-1", "bottom"])
def test_the_edges_of_a_decryption(M: int) -> None:
    """With a grid as fine as decryptions, intervals reach -Q/2 and Q/2."""
    answers = Answers.encrypt(clinic(), [M])
    fine = {"grid_bits": BASE.D}
    wide = [answers.answer(0, value=0, tolerance=HALF), answers.answer(0, value=1, tolerance=HALF)]
    for answer in [
        wide[M == HALF],
        answers.answer(0, "threshold", value=M),
        answers.answer(0, "threshold", value=-HALF),
    ]:
        proven(answers, answers.statement(answer, **fine))
    for tolerance in (1, 2):
        if M - tolerance >= -HALF and M + tolerance <= HALF + 1:
            proven(answers, answers.statement(answers.answer(0, value=M, tolerance=tolerance), **fine))


def test_what_is_proven_of_a_real_result_is_what_the_clinic_decrypts(story: bundles.Story) -> None:
    """Evaluated on SEAL's ciphertexts: M - 1 <= M and M <= M, in units of a decryption, and nothing beside them."""
    material = story.key_material
    patients = story.records.entry.body.count
    p = story.predicted.body.proofs[0]
    result = decode_result(BASE, next(b for b in story.predicted.blobs if bundles.sha256(b).digest() == p.results[0]))
    decrypted = material.keys.decrypt_integers_unverified(result)
    assert len(decrypted) == patients == 5
    made = Clinic.of(material.keys, material.certificate, material.openings)
    answers = Answers(made, (tuple(decrypted),), (result,))

    def told(shift: int) -> DisclosureStatement:
        said = [
            answers.answer(k, value=M + shift, tolerance=1, position=int(result.positions[k]))
            for k, M in enumerate(decrypted)
        ]
        return answers.statement(*said, grid_bits=BASE.D)

    for shift in (0, 1):  # M - 1 <= decryption < M + 1, and M <= decryption < M + 2
        proven(answers, told(shift))
    for shift in (-1, 2):
        with pytest.raises(UsageError, match="not true"):
            answers.prove(told(shift))
    scores = material.keys.decrypt_unverified(result)
    for k, score in enumerate(scores):
        nearest = round(score * 64)
        said = answers.answer(k, value=nearest, position=int(result.positions[k]))
        proven(answers, answers.statement(said))


def test_the_other_implementation_of_the_curve_agrees() -> None:
    answers = Answers.encrypt(clinic("st-anna", 16), [3 * UNIT + 17])
    statement = answers.statement(answers.answer(0))
    proof = proven(answers, statement)
    verify_disclosure(statement, proof, answers.lookup, group=REFERENCE)
    false = replace(statement, recipient_nonce=name("another"))
    with pytest.raises(VerificationFailed):
        verify_disclosure(false, proof, answers.lookup, group=REFERENCE)


def test_a_key_whose_commitments_are_equal_is_only_useless() -> None:
    """s = 0 under one blinding makes C_s the identity, which no decoder accepts but an addition may give."""
    made = clinic()
    keys = ClinicKeys(made.params, "zero", 1, np.zeros(64, dtype=np.int64), made.keys.e_pk)
    same = Clinic(keys, KeyOpenings(5, 5), b"", made.C_plus, made.C_plus)
    answers = Answers.encrypt(same, [UNIT])
    proven(answers, answers.statement(answers.answer(0)))


# -- coefficients -----------------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_ring(some: Answers) -> None:
    """<a_k, s> and the folded form, against multiplication in Z[X] / (X^N + 1) written out."""
    said = [some.answer(4, "exact", 0), some.answer(2, "exact", 1, versus=2), some.answer(0, "threshold", 0)]
    statement = some.statement(*said)
    coefficients = Coefficients(statement, some.lookup)
    s = [int(x) for x in some.clinic.keys.s]
    N, primes = 64, BASE.primes
    rows = []
    for answer in said:
        parts = [some.lookup(digest) for digest in answer.results]
        for level, q in enumerate(primes):
            c1 = [int(x) for x in parts[0].c1[level]]
            if len(parts) == 2:
                c1 = [(x - int(y)) % q for x, y in zip(c1, parts[1].c1[level], strict=True)]
            k = answer.position
            rows.append([c1[k - j] if j <= k else -c1[N + k - j] for j in range(N)])
    products = [x for part in coefficients.inner_products(some.clinic.keys.s) for x in part]
    assert products == [sum(a * b for a, b in zip(row, s, strict=True)) for row in rows]
    weights = [[ORDER - 5, 3], [1 << 200, 7], [11, 13]]
    flat = [w for part in weights for w in part]
    folded = [sum(w * row[j] for w, row in zip(flat, rows, strict=True)) % ORDER for j in range(N)]
    assert coefficients.folded(weights) == folded


def test_a_result_that_is_not_the_one_named_is_refused(some: Answers) -> None:
    statement = some.statement(some.answer(0))
    proof = some.prove(statement)
    result = some.results[0]
    c0 = result.c0.copy()
    c0[0, 4] ^= np.uint64(1)
    excess = result.c0.copy()
    excess[0, 4] = np.uint64(BASE.primes[0])
    for other in (some.results[1], replace(result, c0=c0), replace(result, c0=excess)):
        with pytest.raises(VerificationFailed) as caught:
            verify_disclosure(statement, proof, lambda digest, other=other: other)
        assert caught.value.check == "disclosure.result"


# -- what nobody can say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"handle": bytes(31)}, "32 bytes"),
        ({"results": (bytes(31),)}, "32 bytes"),
        ({"results": ()}, "one result"),
        ({"results": (bytes(32), bytes(32))}, "one result"),
        ({"versus": 1}, "a difference two"),
        ({"versus": 0, "results": (bytes(32), bytes(32))}, "different outputs"),
        ({"versus": -1, "results": (bytes(32), bytes(32))}, "not negative"),
        ({"patient": -1}, "not negative"),
        ({"output": -1}, "not negative"),
        ({"position": -1}, "not negative"),
        ({"kind": "open"}, "no disclosure of kind 'open'"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": -1}, "tolerance"),
        ({"kind": "threshold"}, "tolerance"),
        ({"kind": "threshold", "tolerance": -1}, "tolerance"),
    ],
)
def test_fields_that_no_answer_has(fields, problem: str) -> None:
    good = DisclosedAnswer(bytes(32), 0, 0, None, (bytes(32),), 0, "exact", 0, 1)
    with pytest.raises(UsageError, match=problem):
        replace(good, **fields)


@pytest.mark.parametrize(
    "field",
    [
        *("key_id", "key_certificate", "model_id", "records_id", "prediction_id", "grant_id", "recipient_nonce"),
        *("C_plus", "C_minus"),
    ],
)
def test_ids_and_commitments_have_their_length(some: Answers, field: str) -> None:
    statement = some.statement(some.answer(0))
    for value in (getattr(statement, field) + b"\0", getattr(statement, field)[:-1], b""):
        with pytest.raises(UsageError, match="bytes"):
            replace(statement, **{field: value})


def test_statements_that_nobody_can_make(some: Answers) -> None:
    answer = some.answer(0)
    for answers, problem in [
        ((), "1 to 256"),
        ((replace(answer, position=64),), "leaves the range"),
        ((answer, replace(answer, value=answer.value + 1)), "one thing of a kind"),
    ]:
        with pytest.raises(UsageError, match=problem):
            some.statement(*answers)
    for grid_bits in (-1, BASE.D + 1):
        with pytest.raises(UsageError, match="finer"):
            some.statement(answer, grid_bits=grid_bits)


def test_a_difference_and_its_opposite_are_one_answer(some: Answers) -> None:
    """a - b >= n beside b - a >= -n - 1 is an interval half as wide as any exact disclosure."""
    ahead, behind = some.answer(0, "threshold", 0, versus=1), some.answer(0, "threshold", 1, versus=0)
    assert ahead.value + behind.value == -1
    with pytest.raises(UsageError, match="one thing of a kind"):
        some.statement(ahead, behind)


@pytest.mark.parametrize(
    ("value", "tolerance", "kind", "possible"),
    [
        (0, HALF, "exact", True),
        (1, HALF, "exact", True),
        (2, HALF, "exact", False),
        (-1, HALF, "exact", False),
        (0, HALF + 1, "exact", False),
        (HALF, 1, "exact", True),
        (HALF + 1, 1, "exact", False),
        (-HALF, 1, "exact", False),
        (1 - HALF, 1, "exact", True),
        (Q, 1, "exact", False),
        (-Q, 1, "exact", False),
        (-HALF, 0, "threshold", True),
        (-HALF - 1, 0, "threshold", False),
        (HALF, 0, "threshold", True),
        (HALF + 1, 0, "threshold", False),
    ],
)
def test_intervals_stay_within_the_range_of_a_decryption(
    some: Answers, value: int, tolerance: int, kind, possible: bool
) -> None:
    answer = replace(some.answer(0), kind=kind, value=value, tolerance=tolerance)
    if possible:
        some.statement(answer, grid_bits=BASE.D)
        return
    with pytest.raises(UsageError, match="leaves the range"):
        some.statement(answer, grid_bits=BASE.D)


# -- the prover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exact", "threshold"])
@pytest.mark.parametrize("off", [-2, -1, 1, 2])
def test_the_prover_refuses_a_false_statement(some: Answers, kind, off: int) -> None:
    for place in range(5):
        answer = some.answer(place, kind)
        false = replace(answer, value=answer.value + off)
        low, high = some.statement(false).interval(false)
        if low <= some.decryptions[0][place] < high:
            proven(some, some.statement(false))
            assert kind == "threshold" or abs(off) == 1
            continue
        assert kind == "exact" or off > 0
        with pytest.raises(UsageError, match="not true"):
            some.prove(some.statement(some.answer(place, kind, 1), false))


@pytest.mark.parametrize(("M", "holds"), [(-1, False), (0, True), (2 * STEP - 1, True), (2 * STEP, False)])
def test_the_interval_is_half_open(M: int, holds: bool) -> None:
    answers = Answers.encrypt(clinic(), [M])
    statement = answers.statement(answers.answer(0, value=1))
    if holds:
        proven(answers, statement)
        return
    with pytest.raises(UsageError, match="not true"):
        answers.prove(statement)


def test_the_prover_refuses_a_key_or_openings_that_are_not_those_of_the_entry(some: Answers) -> None:
    statement, made = some.statement(some.answer(0)), some.clinic
    other = clinic("st-ben")
    swapped = KeyOpenings(made.openings.rho_minus, made.openings.rho_plus)
    for s, openings in [
        (other.keys.s, other.openings),
        (other.keys.s, made.openings),
        (made.keys.s, other.openings),
        (made.keys.s, swapped),
        (-made.keys.s, swapped),
    ]:
        with pytest.raises(UsageError, match="not that of the key entry"):
            prove_disclosure(statement, some.lookup, s, openings)
    for s in (made.keys.s[:-1], made.keys.s.astype(np.int32), made.keys.s * 2):
        with pytest.raises(UsageError, match="64 int64 coefficients from -1 to 1"):
            prove_disclosure(statement, some.lookup, s, made.openings)


def test_the_prover_gives_up_when_nothing_fits(some: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(disclosure_prover, "_attempt", lambda *arguments: calls.append(arguments[5]))
    with pytest.raises(UsageError, match="restarted too often"):
        some.prove(some.statement(some.answer(0)))
    # Every attempt has a commitment of its own.
    assert len(calls) == len({ARKWORKS.encode(C_V) for C_V in calls}) == disclosure_prover._MAX_ATTEMPTS


def test_published_values_keep_the_distance_that_hides_the_witness(some: Answers) -> None:
    """Within it every value comes from exactly one mask, whatever the witness is."""
    statement = some.statement(some.answer(0), some.answer(1, "threshold"))
    bounds = statement.bounds
    for _ in range(10):
        proof = DisclosureProof.decode(statement, some.prove(statement))
        assert max(map(abs, proof.z)) <= bounds.M5 - bounds.T5
        assert max(map(abs, proof.xi)) <= bounds.B4 - bounds.honest4


def test_no_two_proofs_share_a_commitment(some: Answers) -> None:
    statement = some.statement(some.answer(0))
    proofs = [DisclosureProof.decode(statement, some.prove(statement)) for _ in range(3)]
    for one, two in pairwise(proofs):
        assert one.C_V != two.C_V and one.C_R != two.C_R and one.opening.masks[0] != two.opening.masks[0]


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "kind", "T5", "M5", "quotient", "B4", "no_wrap"),
    [
        (1, "exact", 56, 65, 35, 80, 152),
        (1, "threshold", 74, 83, 35, 80, 152),
        (16, "exact", 60, 69, 35, 84, 156),
        (100, "exact", 61, 70, 35, 87, 158),
        (100, "threshold", 79, 88, 35, 87, 158),
    ],
)
def test_bits_of_the_bounds_that_are_documented(
    hundred: Answers, count: int, kind, T5: int, M5: int, quotient: int, B4: int, no_wrap: int
) -> None:
    bounds = hundred.statement(*(hundred.answer(k, kind) for k in range(count))).bounds
    found = tuple(x.bit_length() for x in (bounds.T5, bounds.M5, bounds.quotient, bounds.B4, bounds.no_wrap))
    assert found == (T5, M5, quotient, B4, no_wrap)


def test_bounds_hold_for_the_largest_witness(some: Answers) -> None:
    """Squares and quotients at both ends of everything, against the bounds that hide them."""
    for M in (-HALF, -HALF // 3, 0, HALF // 2, HALF):
        answers = Answers.encrypt(clinic(), [M])
        statement = answers.statement(answers.answer(0, "threshold", value=-HALF), grid_bits=BASE.D)
        v, quotients = disclosure_prover._witness(
            statement, Coefficients(statement, answers.lookup), answers.clinic.keys.s
        )
        low, high = statement.interval(statement.answers[0])
        assert min(v) >= 0
        assert max(v) <= high - low
        assert max(map(abs, quotients)) <= statement.bounds.quotient
        d, *roots = v
        assert 4 * d * (high - 1 - low - d) + 1 == sum(x * x for x in roots)
        assert d == M - low


def test_what_the_shortness_of_five_numbers_keeps_from_wrapping(hundred: Answers) -> None:
    """4 d (w - d) + 1 - x^2 - y^2 - z^2 for all |v| <= 2^100 and w < Q is far below r; so is T5's own condition."""
    widest = 1 << disclosure._WIDEST
    assert 4 * widest * (widest + Q) + 1 + 3 * widest**2 < ORDER >> 50
    bounds = hundred.statement(*(hundred.answer(k, "threshold") for k in range(100))).bounds
    assert widest > 2 * bounds.M5
    assert 4 * bounds.M5 < ORDER


def test_the_limit_of_the_squares(some: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = (2 * some.statement(some.answer(0)).bounds.M5).bit_length()
    monkeypatch.setattr(disclosure, "_WIDEST", bits)
    proven(some, some.statement(some.answer(0)))
    monkeypatch.setattr(disclosure, "_WIDEST", bits - 1)
    with pytest.raises(UsageError, match="too wide for an exact proof"):
        some.prove(some.statement(some.answer(0)))


def test_the_limit_of_no_wrap(some: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest T4 mask for which T2's condition holds, and one more."""
    statement = some.statement(some.answer(0))
    q = max(BASE.primes)
    x_max = 65 * q + Q // 2 + 1
    room = ORDER - 1 - (1 << 2 * KAPPA) * x_max
    largest = room // ((1 << KAPPA + 1) * (1 + q) * statement.bounds.honest4)
    monkeypatch.setattr(disclosure, "_RHO4", largest)
    at_limit = some.statement(some.answer(0))
    assert ORDER - (1 << KAPPA + 1) * (1 + q) * statement.bounds.honest4 <= at_limit.bounds.no_wrap < ORDER
    proven(some, at_limit)
    monkeypatch.setattr(disclosure, "_RHO4", largest + 1)
    with pytest.raises(VerificationFailed, match="no-wrap"):
        some.prove(some.statement(some.answer(0)))


@pytest.mark.parametrize("primes", [((1 << 34) - 41, BASE.primes[1]), (BASE.primes[0], (1 << 57) - 13)])
def test_primes_for_which_the_argument_does_not_hold_are_refused(some: Answers, primes: tuple[int, int]) -> None:
    """A T4 challenge could be a multiple of the first; a row of the second leaves 64 bits."""
    params = replace(small_parameters(64), primes=primes)
    with pytest.raises(UsageError, match="data primes are too small or too large"):
        _ = some.statement(some.answer(0), params=params).bounds


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case(some: Answers) -> tuple[DisclosureStatement, bytes]:
    statement = some.statement(some.answer(0), some.answer(1, "threshold"))
    return statement, proven(some, statement)


def test_a_proof_decodes_to_itself(case: tuple[DisclosureStatement, bytes]) -> None:
    statement, data = case
    assert DisclosureProof.decode(statement, data).encode(statement) == data


@pytest.mark.parametrize("change", ["empty", "one less", "half", "one more", "twice", "tag", "version"])
def test_other_lengths_and_tags_are_refused(case: tuple[DisclosureStatement, bytes], change: str) -> None:
    statement, data = case
    other = {
        "empty": b"",
        "one less": data[:-1],
        "half": data[: len(data) // 2],
        "one more": data + b"\0",
        "twice": data + data,
        "tag": b"S" + data[1:],
        "version": data.replace(b"/v1\n", b"/v2\n", 1),
    }[change]
    with pytest.raises(DecodeError, match="disclosure"):
        DisclosureProof.decode(statement, other)


def layout(statement: DisclosureStatement) -> dict[str, int]:
    """Where the parts of a proof begin."""
    bounds, shapes = statement.bounds, statement.shapes()
    parts = [
        ("C_V", 48),
        ("C_R", 48),
        ("z", J * disclosure._width(bounds.M5)),
        ("xi", T4_ROWS * disclosure._width(bounds.B4)),
        *((f"A{i}", 48) for i in range(3)),
        ("t", 32),
        *((f"r{i}", 32) for i in range(3)),
        *((f"response{i}", sum(run.count * run.width for run in runs)) for i, runs in enumerate(shapes)),
        ("A", 48),
        ("T0", 48),
        ("T1", 48),
        ("squares", 32 * 4 * len(statement.answers)),
        ("r", 32),
        ("tau", 32),
    ]
    starts, at = {}, len(b"sealproof/disclosure/v1\n")
    for part, length in parts:
        starts[part] = at
        at += length
    starts["end"] = at
    return starts


PARTS = [
    *("C_V", "C_R", "z", "xi", "A0", "A1", "A2", "t", "r0", "r1", "r2", "response0", "response1", "response2"),
    *("A", "T0", "T1", "squares", "r", "tau"),
]


@pytest.mark.parametrize("part", PARTS)
def test_one_bit_anywhere(some: Answers, case: tuple[DisclosureStatement, bytes], part: str) -> None:
    statement, data = case
    starts = layout(statement)
    assert starts["end"] == len(data) and [*starts][:-1] == PARTS
    end = starts[[*PARTS, "end"][PARTS.index(part) + 1]]
    for at in (starts[part], (starts[part] + end) // 2, end - 1):
        other = bytearray(data)
        other[at] ^= 1
        with pytest.raises((VerificationFailed, DecodeError)):
            verify_disclosure(statement, bytes(other), some.lookup)


@pytest.mark.parametrize("part", ["t", "r0", "r1", "r2", "squares", "r", "tau"])
def test_scalars_are_below_the_order(case: tuple[DisclosureStatement, bytes], part: str) -> None:
    statement, data = case
    at = layout(statement)[part]
    raised = int.from_bytes(data[at : at + 32], "little") + ORDER
    for value in (ORDER, raised, (1 << 256) - 1):
        if value >> 256:
            continue
        with pytest.raises(DecodeError, match="not below the group order"):
            DisclosureProof.decode(statement, data[:at] + value.to_bytes(32, "little") + data[at + 32 :])


@pytest.mark.parametrize("part", ["C_V", "C_R", "A0", "A1", "A2", "A", "T0", "T1"])
def test_points_are_canonical_and_not_the_identity(case: tuple[DisclosureStatement, bytes], part: str) -> None:
    statement, data = case
    at = layout(statement)[part]
    for point in (ARKWORKS.encode(ARKWORKS.identity()), bytes(48), b"\xff" * 48):
        with pytest.raises(DecodeError):
            DisclosureProof.decode(statement, data[:at] + point + data[at + 48 :])


def test_commitments_of_the_key_are_decoded_strictly(some: Answers, case: tuple[DisclosureStatement, bytes]) -> None:
    statement, data = case
    for field in ("C_plus", "C_minus"):
        with pytest.raises(DecodeError):
            verify_disclosure(replace(statement, **{field: bytes(48)}), data, some.lookup)


def test_results_are_asked_for_by_digest_and_only_once() -> None:
    answers = Answers.encrypt(clinic(), [UNIT, 2 * UNIT], [3 * UNIT, 5 * UNIT])
    said = [answers.answer(0), answers.answer(1), answers.answer(0, "threshold", 0, versus=1)]
    statement = answers.statement(*said)
    proof, asked = answers.prove(statement), []

    def lookup(digest: bytes) -> ResultCiphertext:
        asked.append(digest)
        return answers.lookup(digest)

    verify_disclosure(statement, proof, lookup)
    assert asked == [result_digest(answers.clinic.params, result) for result in answers.results]
