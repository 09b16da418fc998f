"""Tables of derived numbers for the documents: bounds, proof sizes, exposure. Computed, never typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log2

from privacy.ckks.bounds import derive_bounds
from privacy.ckks.evaluation_proof import EvaluationProof, EvaluationStatement, OutputStatement
from privacy.ckks.exposure import model_bits, proof_bits
from privacy.ckks.key_certificate import ERROR_BITS, KeyCertificate, derive_key_bounds
from privacy.ckks.packing import Packing, capacity
from privacy.ckks.params import parameter_set
from privacy.errors import UsageError
from privacy.zk.relations import CHALLENGE_BITS

__all__ = ["PARTS"]

PARAMS = parameter_set("linear-4096")
B, B_BIAS, GRID_BITS = 28, 62, 6
FEATURES = 30
_ZERO = bytes(32)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _log2(value: int) -> str:
    return f"{log2(value):.1f}"


def bounds_table() -> str:
    """Derived bounds for full blocks, and the first number of blocks that the grid 2^-6 refuses."""
    rows = []
    for blocks, grid_bits in ((1, 6), (16, 6), (64, 6), (256, 5)):
        small, large = (
            derive_bounds(PARAMS, instances=blocks, published=PARAMS.N, d=d, b=B, b_bias=B_BIAS, grid_bits=grid_bits)
            for d in (FEATURES, 4096)
        )
        rows.append(
            [
                str(blocks),
                f"2^-{grid_bits}",
                str(small.f),
                _log2(small.M0),
                _log2(small.M1),
                _log2(small.Mu),
                f"{log2(small.err) - PARAMS.D:.1f}",
                f"{_log2(small.B4)} / {_log2(large.B4)}",
                f"{_log2(small.no_wrap)} / {_log2(large.no_wrap)}",
            ]
        )
    header = ["blocks of 4096", "g", "f", "log2 M0", "log2 M1", "log2 M'", "log2 err - D", "log2 B4, d = 30 / 4096"]
    return f"{table([*header, 'log2 of the no-wrap left side'], rows)}\n\n{_refusal()}"


def _refusal() -> str:
    blocks = 1
    try:
        while True:
            derive_bounds(
                PARAMS,
                instances=blocks,
                published=PARAMS.N,
                d=FEATURES,
                b=B,
                b_bias=B_BIAS,
                grid_bits=GRID_BITS,
            )
            blocks += 1
    except UsageError as error:
        return f"At g = 2^-{GRID_BITS} a proof of full blocks covers at most {blocks - 1}. Beyond that: *{error}*."


def _statement(packing: Packing, blocks: int, count: int, outputs: int = 1) -> EvaluationStatement:
    ciphertexts = FEATURES if packing is Packing.COLUMNS else 1
    output = OutputStatement("y", B, B_BIAS, bytes(48))
    return EvaluationStatement(
        params=PARAMS,
        packing=packing,
        d=FEATURES,
        count=count,
        first_block=0,
        blocks=blocks,
        grid_bits=GRID_BITS,
        clinic="clinic",
        key_number=0,
        key_id=_ZERO,
        p0_digest=_ZERO,
        key_certificate=_ZERO,
        model_id=_ZERO,
        model_certificate=_ZERO,
        schema=_ZERO,
        outputs=(output,) * outputs,
        records_id=_ZERO,
        handles=_ZERO,
        head_size=0,
        head_root=_ZERO,
        input_digests=(_ZERO,) * (blocks * ciphertexts),
        result_digests=(_ZERO,) * (blocks * outputs),
    )


def proof_sizes() -> str:
    """Bytes of an evaluation proof by shape, and what full-size responses would have cost for one block."""
    full = PARAMS.N
    shapes = [
        ("columns, 1 block of 4096", _statement(Packing.COLUMNS, 1, full)),
        ("columns, 1 block of 569", _statement(Packing.COLUMNS, 1, 569)),
        ("rows, 1 patient", _statement(Packing.ROWS, 1, 1)),
        (
            f"rows, {capacity(PARAMS, Packing.ROWS, FEATURES)} patients",
            _statement(Packing.ROWS, 1, capacity(PARAMS, Packing.ROWS, FEATURES)),
        ),
        ("columns, 2 blocks of 4096", _statement(Packing.COLUMNS, 2, full)),
        ("columns, 8 blocks of 4096", _statement(Packing.COLUMNS, 8, full)),
        ("columns, 64 blocks of 4096", _statement(Packing.COLUMNS, 64, full)),
    ]
    rows = []
    for name, statement in shapes:
        coordinates = sum(run.count for runs in statement.shapes() for run in runs)
        responses = sum(run.count * run.width for runs in statement.shapes() for run in runs)
        total = EvaluationProof.size(statement)
        rows.append([name, f"{total:,}", f"{responses:,}", f"{total - responses + 32 * coordinates:,}"])
    return table(["shape, 30 features", "proof bytes", "of these responses", "with 32-byte responses"], rows)


def response_widths() -> str:
    """Widths of short responses for one block of 4096 patients."""
    statement = _statement(Packing.COLUMNS, 1, PARAMS.N)
    names = ("u", "nu", "mu0", "mu1", "K0", "K1", "T4 masks", "w and bias")
    runs = [run for runs in statement.shapes() for run in runs]
    rows = [
        [name, str(run.count), "any" if run.bound is None else f"2^{log2(run.bound):.1f}", str(run.width)]
        for name, run in zip(names, runs, strict=True)
    ]
    coordinates = sum(run.count for run in runs if run.short)
    # Of the 2^m values of a mask, 2 T = 2^129 V lead to a restart.
    chance = sum(
        run.count * 2.0 ** (CHALLENGE_BITS + 1 - 8 * run.width) * (run.bound or 0) for run in runs if run.short
    )
    note = f"{coordinates} short coordinates; the last step restarts about once in {round(1 / chance):,} proofs."
    return f"{table(['coordinates', 'how many', 'bound V', 'bytes each'], rows)}\n\n{note}"


def key_certificate_size() -> str:
    """Bytes and coordinates of a key certificate."""
    bounds = derive_key_bounds(PARAMS)
    coordinates = (2 + ERROR_BITS) * PARAMS.N + bounds.quotients + 5
    total = len(b"sealproof/v1/key-certificate\n") + 4 * 48 + 5 * bounds.xi_bytes + 6 * 48 + 32 * (coordinates + 5)
    rows = [
        ["row equations for each prime", ", ".join(map(str, bounds.rows))],
        ["coordinates", f"{coordinates:,}"],
        ["log2 B4", f"{log2(bounds.B4):.1f}"],
        ["log2 of the no-wrap left side", f"{log2(bounds.no_wrap):.1f}"],
        ["bytes", f"{total:,}"],
    ]
    return table([f"{KeyCertificate.__name__}, {PARAMS.name}", ""], rows)


def exposure_table() -> str:
    """Bits of one answer against the bits of a model, by number of full blocks in a proof."""
    size = model_bits(FEATURES, B, B_BIAS)
    rows = []
    for name, blocks, count in (
        ("1 patient", 1, 1),
        ("1 block of 569", 1, 569),
        ("1 block of 4096", 1, 4096),
        ("16 blocks of 4096", 16, 4096),
        ("64 blocks of 4096", 64, 4096),
    ):
        shape = {"d": FEATURES, "b": B, "b_bias": B_BIAS, "grid_bits": GRID_BITS}
        f = derive_bounds(PARAMS, instances=blocks, published=count, **shape).f
        bits = proof_bits(PARAMS, blocks=blocks, outputs=1, count=count, **shape) / (blocks * count)
        rows.append([name, str(f), f"{float(bits):.1f}", str(ceil(size / bits))])
    header = ["one proof of", "blur f", "bits an answer", "answers that count as the whole model"]
    return f"A model of {FEATURES} weights with b = {B}, b_bias = {B_BIAS} counts {size} bits.\n\n{table(header, rows)}"


PARTS: Mapping[str, Callable[[], str]] = {
    "bounds-table": bounds_table,
    "proof-sizes": proof_sizes,
    "response-widths": response_widths,
    "key-certificate": key_certificate_size,
    "exposure-table": exposure_table,
}
