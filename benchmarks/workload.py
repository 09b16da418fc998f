"""The work that is measured: one clinic, one model, blocks of patients, and the parties' steps on them.

Everything but the randomness that hides something follows from a seed, so that another process can take up the work
from its folder: key file, encrypted blocks (one .npy each), model commitments with openings, statements and proofs.
The folder is temporary and holds secrets of nobody.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.ckks.bounds import derive_bounds
from privacy.ckks.canonical import decode_result, encode_result, input_digest, public_key_digest, result_digest
from privacy.ckks.evaluate import Evaluation, draw_noise, evaluate
from privacy.ckks.evaluation_proof import EvaluationStatement, OutputStatement
from privacy.ckks.evaluation_prover import OutputWitness, prove_evaluation
from privacy.ckks.evaluation_verifier import VerifiedEvaluation, verify_evaluation
from privacy.ckks.key_certificate import KeyOpenings, VerifiedKey, certify_key, verify_key_certificate
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing, pack, positions, rows_shifted
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.models.certificate import (
    ModelStatement,
    VerifiedModel,
    WeightOpening,
    certify_model,
    commit_model,
    model_statement,
    verify_model_certificate,
)
from privacy.models.linear import LinearModel
from privacy.models.quantise import QuantisedModel, quantise
from privacy.models.schema import Feature, Schema

__all__ = ["Encrypted", "Proven", "Work", "named"]

CLINIC = "clinic-a"
KEY_NUMBER = 1


def named(name: str) -> bytes:
    """A 32-byte identifier. On a ledger these are leaf hashes; here nothing depends on their value."""
    return sha256(name.encode()).digest()


@dataclass(frozen=True, eq=False)
class Encrypted:
    """A block as the clinic uploads it: SEAL files, canonical digests; and the canonical arrays (m, 2, L, N)."""

    uploads: list[bytes]
    digests: list[bytes]
    arrays: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Proven:
    """What the server publishes: statement, proof and encoded results."""

    statement: EvaluationStatement
    proof: bytes
    results: list[bytes]


@dataclass(frozen=True, eq=False)
class Work:
    """`blocks` blocks of `count` patients with `d` features each, in one packing."""

    folder: Path
    packing: Packing
    d: int
    count: int
    blocks: int
    seed: int = 0

    @property
    def params(self) -> ParameterSet:
        return parameter_set("linear-4096")

    # --- the parties' own data ------------------------------------------------------------------------------------

    @cached_property
    def model(self) -> LinearModel:
        """A random logistic model over features in [-1, 1]."""
        rng = np.random.default_rng([self.seed, 0])
        schema = Schema("benchmark", 1, tuple(Feature(f"x{i}", "1", -1.0, 1.0) for i in range(self.d)))
        return LinearModel("risk", rng.normal(size=(1, self.d)), rng.normal(size=1), ("risk",), "logit", schema)

    @cached_property
    def quantised(self) -> QuantisedModel:
        return quantise(self.model, self.params)

    def records(self, block: int) -> NDArray[np.float64]:
        """Raw records (count, d) of one block."""
        return np.random.default_rng([self.seed, 1, block]).uniform(-1, 1, (self.count, self.d))

    @cached_property
    def keys(self) -> ClinicKeys:
        """The clinic's key pair; made once a folder."""
        path = self.folder / "clinic.key"
        if not path.exists():
            ClinicKeys.generate(self.params, CLINIC, KEY_NUMBER).save(path)
        return ClinicKeys.load(path)

    @cached_property
    def commitments(self) -> tuple[tuple[bytes, ...], tuple[WeightOpening, ...]]:
        """C_W of the model and its opening; made once a folder."""
        path = self.folder / "model.pickle"
        if not path.exists():
            path.write_bytes(pickle.dumps(commit_model(self.quantised)))
        return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]

    @cached_property
    def model_statement(self) -> ModelStatement:
        return model_statement(self.quantised, self.params, "1", self.commitments[0])

    # --- clinic ---------------------------------------------------------------------------------------------------

    def encrypt(self, values: NDArray[np.float64]) -> Encrypted:
        """From encoded values (count, d) to what is uploaded."""
        encrypted = self.keys.encrypt_block(pack(self.params, self.packing, values))
        digests = [input_digest(self.params, named("key"), each.array) for each in encrypted]
        return Encrypted([x.seal_bytes for x in encrypted], digests, np.stack([x.array for x in encrypted]))

    def encoded(self, block: int) -> NDArray[np.float64]:
        """Encoded values (count, d) of one block: where the clinic's measured work begins."""
        return self.model.schema.encode(self.records(block))

    def submit(self) -> None:
        """Encrypt every block into the folder: one array file a block, and all digests."""
        digests: list[bytes] = []
        for block in range(self.blocks):
            encrypted = self.encrypt(self.encoded(block))
            digests += encrypted.digests
            np.save(self._block(block), encrypted.arrays)
        self._digests.write_bytes(b"".join(digests))

    def open_result(self, result: bytes) -> NDArray[np.float64]:
        """Decrypt one encoded result: answers (count,)."""
        return self.keys.decrypt_unverified(decode_result(self.params, result))

    # --- server ---------------------------------------------------------------------------------------------------

    def _block(self, block: int) -> Path:
        return self.folder / f"{self.packing}-{block:03}.npy"

    @property
    def _digests(self) -> Path:
        return self.folder / f"{self.packing}-digests"

    def stored(self, block: int) -> NDArray[np.uint64]:
        """The ciphertexts (m, 2, L, N) of a block, read from disk."""
        return np.load(self._block(block))  # type: ignore[no-any-return]

    def _virtual(self, block: int) -> NDArray[np.uint64]:
        arrays = self.stored(block)
        return arrays if self.packing is Packing.COLUMNS else np.stack(rows_shifted(self.params, arrays[0], self.d))

    def evaluate(self) -> list[Evaluation]:
        """Evaluate every block with re-randomisation and blur, one block in memory at a time."""
        output, public = self.quantised.outputs[0], self.keys.public
        P = positions(self.params, self.packing, self.d, self.count)
        f = derive_bounds(
            self.params,
            instances=self.blocks,
            published=self.count,
            d=self.d,
            b=output.b,
            b_bias=output.b_bias,
            grid_bits=self.quantised.grid_bits,
        ).f
        evaluations = []
        for block in range(self.blocks):
            noise = draw_noise(self.params, self.count, f)
            inputs = self._virtual(block)
            evaluations.append(
                evaluate(self.params, public.p0, public.p1, inputs, output.weights, output.bias, P, noise)
            )
        return evaluations

    def prove(self, evaluations: list[Evaluation]) -> Proven:
        """Result digests, statement and proof of all blocks."""
        public, opening = self.keys.public, self.commitments[1][0]
        digests, size = self._digests.read_bytes(), 32
        model = self.model_statement.outputs[0]
        statement = EvaluationStatement(
            params=self.params,
            packing=self.packing,
            d=self.d,
            count=self.count,
            first_block=0,
            blocks=self.blocks,
            grid_bits=self.quantised.grid_bits,
            clinic=CLINIC,
            key_number=KEY_NUMBER,
            key_id=named("key"),
            p0_digest=public_key_digest(self.params, public.p0),
            key_certificate=named("key certificate"),
            model_id=named("model"),
            model_certificate=named("model certificate"),
            schema=self.model.schema.digest(),
            outputs=(OutputStatement(model.name, model.b, model.b_bias, model.C_W),),
            records_id=named("records"),
            handles=named("handles"),
            head_size=3,
            head_root=named("head"),
            input_digests=tuple(digests[i : i + size] for i in range(0, len(digests), size)),
            result_digests=tuple(result_digest(self.params, e.result) for e in evaluations),
        )
        proof = prove_evaluation(
            statement,
            public.p0,
            public.p1,
            self._virtual,
            evaluations,
            [OutputWitness(opening.weights, opening.bias, opening.rho)],
        )
        return Proven(statement, proof, [encode_result(self.params, e.result) for e in evaluations])

    # --- auditor --------------------------------------------------------------------------------------------------

    def verify(self, proven: Proven) -> VerifiedEvaluation:
        """Verify a proof: every input and result is read, hashed and compared."""
        public = self.keys.public
        return verify_evaluation(
            proven.statement,
            proven.proof,
            public.p0,
            public.p1,
            self.stored,
            lambda instance: decode_result(self.params, proven.results[instance]),
        )

    # --- certificates ---------------------------------------------------------------------------------------------

    @cached_property
    def certified(self) -> tuple[bytes, KeyOpenings]:
        """A key certificate and its openings; made once."""
        keys = self.keys
        return certify_key(self.params, CLINIC, KEY_NUMBER, keys.public.p0, keys.s, keys.e_pk)

    def certify_key(self) -> bytes:
        keys = self.keys
        return certify_key(self.params, CLINIC, KEY_NUMBER, keys.public.p0, keys.s, keys.e_pk)[0]

    def verify_key(self, certificate: bytes) -> VerifiedKey:
        return verify_key_certificate(self.params, CLINIC, KEY_NUMBER, self.keys.public.p0, certificate)

    def certify_model(self) -> bytes:
        return certify_model(self.model_statement, self.commitments[1])

    def verify_model(self, certificate: bytes) -> VerifiedModel:
        return verify_model_certificate(self.model_statement, certificate)

    # --- hand-over between processes ------------------------------------------------------------------------------

    def save(self, name: str, value: object) -> None:
        """Keep `value` in the folder for another process of this benchmark."""
        (self.folder / f"{name}.pickle").write_bytes(pickle.dumps(value))

    def load(self, name: str) -> Any:
        """What `save` kept."""
        return pickle.loads((self.folder / f"{name}.pickle").read_bytes())
