"""The README's table of the two engines: numbers from the product's code and from the committed measurements alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import doc_cost
import doc_joint_tables
import doc_tables
from doc_cost import shown_size, shown_time
from doc_tables import B_BIAS, FEATURES, GRID_BITS, B, table

from privacy.ckks.exposure import model_bits, proof_bits
from privacy.models.network import MAX_HIDDEN, MAX_NEURONS

__all__ = ["PARTS"]

_ABSENT = "not measured yet"


def _read(path: Path) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _encrypted_exposure(count: int) -> tuple[float, int]:
    """Bits of an answer to a full block of `count` patients, and how many count as the whole model."""
    bits = proof_bits(
        doc_tables.PARAMS,
        blocks=1,
        outputs=1,
        count=count,
        d=FEATURES,
        b=B,
        b_bias=B_BIAS,
        grid_bits=GRID_BITS,
    )
    return float(bits / count), ceil(model_bits(FEATURES, B, B_BIAS) / (bits / count))


def _joint_exposure(name: str) -> tuple[int, int]:
    bits = doc_joint_tables.answer_bits(name)
    return bits, ceil(doc_joint_tables.bits_of(name) / bits)


def _cohort() -> list[str]:
    """Computing and proving, in the largest batch of one proof, a patient."""
    overhead, mpc = _read(doc_cost.RESULTS), _read(doc_cost.MPC)
    encrypted = joint = _ABSENT
    if overhead is not None:
        seconds, patients = overhead["seconds"], overhead["work"]["patients"]
        each = (seconds["evaluate"]["median"] + seconds["prove"]["median"]) / patients
        proof = shown_size(overhead["bytes"]["proof"] / patients)
        encrypted = f"{shown_time(each)}, {proof} of proof ({patients} patients)"
    if mpc is not None:
        full = mpc["work"]["patients_per_proof"]
        parts = [
            f"{name} {shown_time(mpc['seconds'][f'prove_{shape}_{full}']['median'] / full)}, "
            f"{shown_size(mpc['bytes'][f'proof_{shape}_{full}'] / full)}"
            for shape, name in (("linear", "linear"), ("relu", "-".join(map(str, mpc["work"]["models"]["relu"]))))
        ]
        joint = f"{'; '.join(parts)} of proof ({full} patients)"
    return ["computing and proving, a patient of a cohort", encrypted, joint]


def _single() -> list[str]:
    """One patient over HTTP, from the request to the verified answer."""
    found = _read(doc_cost.LATENCY)
    encrypted = joint = _ABSENT
    if found is not None:
        encrypted = shown_time(found["seconds"]["predict"]["median"])
        if "mpc" in found:
            model = "-".join(map(str, found["mpc"]["work"]["model"]))
            joint = f"{shown_time(found['mpc']['seconds']['predict']['median'])} ({model})"
    return ["one patient over HTTP, request to verified answer", encrypted, joint]


def choosing() -> str:
    """CKKS beside MPC."""
    one, block = _encrypted_exposure(1), _encrypted_exposure(4096)
    linear, network = _joint_exposure("linear"), _joint_exposure("30-16-1")
    rows = [
        [
            "models",
            "linear: logistic and linear regression, support vector machines",
            f"the same, and ReLU networks of one or two hidden layers (at most {MAX_HIDDEN} neurons in one, "
            f"{MAX_NEURONS} in all)",
        ],
        ["answers", "blurred, each within a proven bound of the committed model's", "exactly the committed model's"],
        ["records", "leave the clinic encrypted", "stay with the clinic, which commits to them"],
        ["weights", "the owner gives them to the server that predicts", "stay with the owner, which commits to them"],
        [
            "who computes, and must be online",
            "the server; the clinic sends, and fetches when it likes",
            "nodes of clinic and owner, and a dealer that sees no data: all three while they compute, and the server",
        ],
        [
            "the clinic trusts, for its records",
            "nobody",
            "that the dealer does not work with the owner, and that the owner follows the protocol: otherwise it can "
            "guess a bit a proof, until the first wrong guess",
        ],
        [
            "the owner trusts, for its weights",
            "the server",
            "the same of dealer and clinic",
        ],
        ["anybody trusts, for a right answer", "nobody", "nobody"],
        [
            f"exposure, {FEATURES} features: bits an answer, answers that count as the whole model",
            f"{one[0]:.0f} bits, {one[1]} (one patient); {block[0]:.0f} bits, {block[1]} (4096 patients)",
            f"linear {linear[0]} bits, {linear[1]}; 30-16-1 {network[0]} bits, {network[1]}",
        ],
        [
            "showing an answer to somebody who asked",
            "an interval or a threshold, of one or many patients in one proof",
            "an interval or a threshold, or all of it, each in a proof of its own",
        ],
        _cohort(),
        _single(),
        ["what a broken connection costs", "a repetition", "the pair is suspended until both owners have cleared it"],
    ]
    return table(["", "CKKS: encrypted records", "MPC: computed together"], rows)


PARTS: Mapping[str, Callable[[], str]] = {"choosing": choosing}
