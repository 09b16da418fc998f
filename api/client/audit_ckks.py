"""The steps of an audit that are particular to predictions on encrypted records (see `api.client.audit`)."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from api import binding
from api.binding import Located, ProofGroup
from api.client.audit_base import Audit
from api.client.prediction import VERIFIED, VerifiedPrediction, rounded_up
from api.entries import ErrorBound, Key, Model, Party, Prediction, PredictionProof, Records, decode_digest_list
from privacy import attestation as att
from privacy.ckks.canonical import ResultCiphertext, decode_input, decode_public_key, decode_result
from privacy.ckks.evaluation_proof import EvaluationStatement
from privacy.ckks.evaluation_verifier import verify_evaluation
from privacy.ckks.keys import derive_p1
from privacy.errors import VerificationFailed
from privacy.models.certificate import check_statement
from privacy.models.schema import Schema

__all__ = ["CkksAudit"]


class CkksAudit(Audit[VerifiedPrediction]):
    """One verification of a prediction on encrypted records."""

    @property
    def clinic(self) -> Located[Party]:
        """The party that wrote key and records, once step 3 has passed."""
        return self._clinic

    # 3 entries: every entry is signed by its author's registered key, in the right role and under the right name.
    def _check_entries(self) -> str:
        self._prediction = self._signed(self._prediction_reference(), Prediction)
        body = self._prediction.body
        self._records = self._signed(body.records, Records)
        self._model = self._signed(body.model, Model)
        self._key = self._signed(body.key, Key)
        self._server, self._owner = self._author(self._prediction).body, self._author(self._model).body
        self._clinic = clinic = self._author(self._key)
        if self._author(self._records) != clinic:
            raise VerificationFailed("entry.author", "records and key entry have different authors")
        self._check_name("key", self._key.body.clinic, clinic.body)
        self._check_name("records", self._records.body.clinic, clinic.body)
        self._approved = self._signed_approval()
        self._check_stray_entries()
        return (
            f"Signed by clinic {clinic.body.name!r}, model owner {self._owner.name!r} and server {self._server.name!r}."
        )

    # 4 order: key < records, {model, records} < prediction, every author older than what it signed.
    def _check_order(self) -> str:
        key, model, records = self._key.reference, self._model.reference, self._records.reference
        binding.check_order(key, model, records, self._prediction.reference)
        self._check_authors_are_older()
        return "The key was fixed before the records, and both and the model before the prediction."

    # 5 references: prediction, records, key, model, schema, policy and coverage belong together.
    def _check_references(self) -> str:
        prediction, records, model = self._prediction.body, self._records.body, self._model.body
        if prediction.key != records.key:
            raise VerificationFailed("records.key", "the prediction names another key than the records")
        if not self._key.body.parameter_set == model.parameter_set == records.parameter_set:
            raise VerificationFailed("entry.parameter-set", "key, model and records name different parameter sets")
        if records.schema != model.schema:
            raise VerificationFailed("records.schema", "records and model have different schemas")
        self._schema = Schema.decode_json(self._blob(model.schema, "schema"))
        if records.d != self._schema.d:
            raise VerificationFailed("records.features", f"{records.d} features, the schema has {self._schema.d}")
        if records.policy.models != "any" and self._model.reference not in records.policy.models:
            raise VerificationFailed("policy.model", "the policy of the records does not allow this model")
        binding.check_coverage(prediction, records, len(model.outputs))
        return f"{records.count} patients, {records.d} features, model {model.name!r} {model.version!r}, all answered."

    # 6 attestation: signed by the server that logged the prediction; it says what the prediction entry says.
    def _check_attestation(self) -> str:
        def expected(issued_at: str, request_nonce: bytes) -> att.Predicate:
            return binding.predicate(
                self._entry_bytes.__getitem__,
                self._prediction.reference.index,
                self._prediction.body,
                self._records.body,
                issued_at=issued_at,
                request_nonce=request_nonce,
                approval=self._approved,
            )

        self._predicate = self._attested(self._server, self._records.body.policy, expected)
        return f"The attestation is signed by server {self._server.name!r} and says what the log says."

    # 7 head: the ledger head that the prediction names is a past of the checkpoint; nothing was revoked under it.
    def _check_head(self) -> str:
        prediction = self._prediction.body
        used = (self._key, self._model, self._records)
        until = self._records.body.policy.until
        return self._past_head(prediction.checkpoint_size, prediction.checkpoint_root, used, until)

    # 8 statements: input digests, positions, blur and error bound follow from the entries.
    def _check_statements(self) -> str:
        prediction, records, model = self._prediction.body, self._records.body, self._model.body
        per_block = records.d if records.packing == "columns" else 1
        listed = self._blob(records.ciphertexts, "list of input digests")
        self._inputs = decode_digest_list(listed, records.blocks * per_block)
        self._statements: list[EvaluationStatement] = []
        for proof in prediction.proofs:
            self._check_proof_size(proof.digest, proof.size)
            first, last = proof.first_block * per_block, (proof.first_block + proof.blocks) * per_block
            statement = binding.evaluation_statement(
                self._key,
                self._model,
                self._records,
                ProofGroup(proof.first_block, proof.blocks, proof.count),
                proof.outputs,
                self._inputs[first:last],
                proof.results,
                (prediction.checkpoint_size, prediction.checkpoint_root),
            )
            if proof.blur_bits != statement.bounds.f:
                raise VerificationFailed("prediction.blur", f"{proof.blur_bits} bits, it must be {statement.bounds.f}")
            self._statements.append(statement)
        params = binding.parameters_of(model.parameter_set)
        bound = ErrorBound(max(s.bounds.err for s in self._statements), params.D, model.grid_bits)
        if prediction.error_bound != bound:
            claimed = prediction.error_bound
            raise VerificationFailed(
                "prediction.error-bound",
                f"claims an error of {claimed.error}/2^{claimed.scale_bits} on the grid 2^-{claimed.grid_bits}, but "
                f"{bound.error}/2^{bound.scale_bits} on 2^-{bound.grid_bits} follows from the public numbers",
            )
        self._check_members()
        return f"Answers are within {rounded_up(Fraction(bound.error, 1 << bound.scale_bits))} of a unit."

    def _check_members(self) -> None:
        """Every blob that the proofs need is there, before any is checked; and nothing else is."""
        prediction, model, key = self._prediction.body, self._model.body, self._key.body
        needed = [(key.p0, "public key"), (key.certificate, "key certificate"), (model.certificate, "certificate")]
        needed += [(statement.proof, f"{statement.type} proof") for statement in model.statements]
        needed += [(proof.digest, "evaluation proof") for proof in prediction.proofs]
        needed += [(digest, "result") for proof in prediction.proofs for digest in proof.results]
        for digest, what in needed:
            self._blob(digest, what)
        missing = [digest for digest in self._inputs if not self._reader.has(digest)]
        if missing and self._ledger is None:
            raise VerificationFailed(
                "bundle.missing-inputs",
                f"{len(missing)} input ciphertexts are not in the bundle: connect to the server that has them, or ask "
                "it for the bundle with inputs",
            )
        self._check_stray_blobs(self._inputs)

    # 9 certificates of key and model, and every statement about a weight.
    def _check_certificates(self) -> str:
        key, model = self._key.body, self._model.body
        statement = binding.model_statement(model, self._schema)
        check_statement(statement)
        p0, key_certificate = self._blob(key.p0, "public key"), self._blob(key.certificate, "key certificate")
        key_entry, model_entry = (self._entry_bytes[x.reference.index] for x in (self._key, self._model))
        self._once(
            "key",
            [key_entry, p0, key_certificate],
            lambda: binding.verify_key_entry(key, p0, key_certificate, self._group),
        )
        certificate = self._blob(model.certificate, "model certificate")
        proofs = [self._blob(s.proof, f"{s.type} proof") for s in model.statements]

        def verify_model() -> None:
            verified = binding.verify_model_entry(model, self._schema.encode_json(), certificate, self._group)
            binding.verify_model_statements(verified, model, proofs)

        self._once("model", [model_entry, self._schema.encode_json(), certificate, *proofs], verify_model)
        sentence = "The key is honest, and the model's weights are bounded, so that no answer can wrap around."
        stated = binding.statement_sentences(model, self._schema)
        return f"{sentence} Proven of single weights: {'; '.join(stated)}." if stated else sentence

    # 10 proofs: every evaluation proof, over the very bytes that are handed out afterwards.
    def _check_proofs(self) -> str:
        key = self._key.body
        params = binding.parameters_of(key.parameter_set)
        p0 = decode_public_key(params, self._blob(key.p0, "public key"))
        p1 = derive_p1(params, key.clinic, key.number)
        total = sum(statement.blocks for statement in self._statements)
        done = 0
        for proof, statement in zip(self._prediction.body.proofs, self._statements, strict=True):

            def results(instance: int, proof: PredictionProof = proof) -> ResultCiphertext:
                return decode_result(params, self._blob(proof.results[instance], "result"))

            verify_evaluation(
                statement,
                self._blob(proof.digest, "evaluation proof"),
                p0,
                p1,
                lambda block, statement=statement: self._stored_inputs(statement, block),  # type: ignore[misc]
                results,
                lambda block, blocks, done=done: self._evidence.progress("proofs", done + block, total),  # type: ignore[misc]
                self._group,
            )
            done += statement.blocks
        return f"{len(self._statements)} proof(s): every answer comes from the committed model and these records."

    def _stored_inputs(self, statement: EvaluationStatement, block: int) -> npt.NDArray[np.uint64]:
        """The input ciphertexts of one block; `verify_evaluation` compares them with their digests."""
        m, params = statement.ciphertexts, statement.params
        stored = np.empty((m, 2, params.L, params.N), dtype=np.uint64)
        for place, digest in enumerate(statement.input_digests[block * m : (block + 1) * m]):
            if self._reader.has(digest):
                data = self._reader.blob(digest)
            elif self._ledger is not None:
                data = self._ledger.blob(digest)
            else:
                raise VerificationFailed("bundle.missing-inputs", f"input {digest.hex()} is not in the bundle")
            stored[place] = decode_input(params, statement.key_id, data)
        return stored

    def _verified(self) -> VerifiedPrediction:
        return VerifiedPrediction(
            path=self._evidence.path,
            head=self._evidence.head,
            prediction=self._prediction,
            records=self._records,
            model=self._model,
            key=self._key,
            server=self._server,
            owner=self._owner,
            schema=self._schema,
            statements=tuple(self._statements),
            issued_at=self._predicate.issued_at,
            request_nonce=self._predicate.request_nonce,
            revoked_since=self._revoked_since,
            approval=self._approval,
            checks=tuple(self._evidence.checks),
            made_by=VERIFIED,
        )
