"""Disclosures of overhead.py: what it costs to show answers of an encrypted prediction, one, 16 or 100 in one proof.

The clinic proves, a consumer verifies; the certificates and the prediction itself are verified before and not counted
here. Both kinds are measured: `exact` to within one step of the grid, and `threshold` at the grid point below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from measure import Step
from workload import Proven, Work, named

from privacy.ckks.canonical import ResultCiphertext, decode_result
from privacy.ckks.disclosure import DisclosedAnswer, DisclosureStatement, verify_disclosure
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.zk.group import ARKWORKS

__all__ = ["COUNTS", "KINDS", "Disclosing", "name", "ratios"]

Kind = Literal["exact", "threshold"]
COUNTS = (1, 16, 100)
KINDS: tuple[Kind, ...] = ("exact", "threshold")
BESIDE = "encrypt_beside_disclosures"
"""The clinic's encryption of the block, once more in the rounds of its disclosures."""


def name(kind: Kind, count: int) -> str:
    """How steps and sizes of a disclosure are called."""
    return f"{kind}_{count}"


@dataclass(frozen=True)
class Disclosing:
    """Statements and proofs about the first block of a prediction."""

    work: Work
    proven: Proven

    @cached_property
    def result(self) -> ResultCiphertext:
        return decode_result(self.work.params, self.proven.results[0])

    @cached_property
    def answers(self) -> list[int]:
        """Decryptions, as integers; benchmarks are a clinic to themselves."""
        return self.work.keys.decrypt_integers_unverified(self.result)

    def results(self, digest: bytes) -> ResultCiphertext:
        return self.result

    def statement(self, kind: Kind, count: int) -> DisclosureStatement:
        """The first `count` patients of the block, one true thing about each."""
        work, evaluated = self.work, self.proven.statement
        certificate, _ = work.certified
        verified = work.verify_key(certificate)
        step = 1 << (work.params.D - work.quantised.grid_bits)
        said = []
        for patient, M in enumerate(self.answers[:count]):
            value, tolerance = ((M + step // 2) // step, 1) if kind == "exact" else (M // step, 0)
            said.append(
                DisclosedAnswer(
                    handle=named(f"patient {patient}"),
                    patient=patient,
                    output=0,
                    versus=None,
                    results=(evaluated.result_digests[0],),
                    position=int(evaluated.positions[patient]),
                    kind=kind,
                    value=value,
                    tolerance=tolerance,
                )
            )
        return DisclosureStatement(
            params=work.params,
            grid_bits=work.quantised.grid_bits,
            key_id=evaluated.key_id,
            key_certificate=evaluated.key_certificate,
            C_plus=ARKWORKS.encode(verified.C_plus),
            C_minus=ARKWORKS.encode(verified.C_minus),
            model_id=evaluated.model_id,
            records_id=evaluated.records_id,
            prediction_id=named("prediction"),
            grant_id=named("grant"),
            recipient_nonce=named("nonce"),
            answers=tuple(said),
        )

    def steps(self, counts: tuple[int, ...]) -> tuple[list[Step], dict[str, bytes]]:
        """Prove and verify, of each kind and number, beside the encryption of the block; and the proofs, once made."""
        made: dict[str, bytes] = {}
        values = self.work.encoded(0)
        s, (_, openings) = self.work.keys.s, self.work.certified

        def prove(key: str, statement: DisclosureStatement) -> Callable[[], None]:
            def step() -> None:
                made[key] = prove_disclosure(statement, self.results, s, openings)

            return step

        def verify(key: str, statement: DisclosureStatement) -> Callable[[], None]:
            return lambda: verify_disclosure(statement, made[key], self.results)

        steps = [Step(BESIDE, lambda: self.work.encrypt(values))]
        for count in counts:
            for kind in KINDS:
                key, statement = name(kind, count), self.statement(kind, count)
                steps.append(Step(f"disclose_{key}", prove(key, statement)))
                steps.append(Step(f"verify_disclosure_{key}", verify(key, statement)))
        return steps, made


def ratios(result: Any, over: Callable[[tuple[str, ...], str], float]) -> dict[str, float]:
    """For each number of answers, over the encryption of the block that they are from: the more expensive kind."""
    found = {}
    for count in COUNTS:
        keys = [name(kind, count) for kind in KINDS if f"disclose_{name(kind, count)}" in result["seconds"]]
        if keys:
            found[f"disclose_over_encrypt_{count}"] = max(over((f"disclose_{key}",), BESIDE) for key in keys)
            found[f"verify_disclosure_over_encrypt_{count}"] = max(
                over((f"verify_disclosure_{key}",), BESIDE) for key in keys
            )
    return found
