"""The steps of an audit that are particular to multi-party computation (see `api.client.audit`)."""

from __future__ import annotations

from api import joint_binding as binding
from api.binding import Located
from api.client.audit_base import Audit
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VERIFIED, rounded_up
from api.entries import CommittedRecords, JointPrediction, Network, Party, decode_point_list
from privacy import attestation as att
from privacy.errors import VerificationFailed
from privacy.models.network_certificate import check_network
from privacy.models.schema import Schema
from privacy.mpc.joint_proof import JointStatement, answers_digest, verify_joint

__all__ = ["JointAudit"]


class JointAudit(Audit[VerifiedJointPrediction]):
    """One verification of a joint prediction."""

    @property
    def clinic(self) -> Located[Party]:
        """The party that wrote the records, once step 3 has passed."""
        return self._clinic

    # 3 entries: every entry is signed by its author's registered key, in the right role and under the right name.
    def _check_entries(self) -> str:
        self._prediction = self._signed(self._prediction_reference(), JointPrediction)
        body = self._prediction.body
        self._records = self._signed(body.records, CommittedRecords)
        self._model = self._signed(body.model, Network)
        self._server = self._author(self._prediction).body
        self._owner, self._clinic = self._author(self._model), self._author(self._records)
        self._check_name("records", self._records.body.clinic, self._clinic.body)
        self._approved = self._signed_approval()
        self._check_stray_entries()
        return (
            f"Signed by clinic {self._clinic.body.name!r}, model owner {self._owner.body.name!r} and server "
            f"{self._server.name!r}."
        )

    # 4 order: {model, records} < prediction, every author older than what it signed.
    def _check_order(self) -> str:
        binding.check_joint_order(self._model.reference, self._records.reference, self._prediction.reference)
        self._check_authors_are_older()
        return "Model and records were committed before the prediction."

    # 5 references: prediction, records, model, schema, policy and coverage belong together.
    def _check_references(self) -> str:
        prediction, records, model = self._prediction.body, self._records.body, self._model.body
        binding.check_joint_fit(model, records)
        self._schema = Schema.decode_json(self._blob(model.schema, "schema"))
        if records.d != self._schema.d:
            raise VerificationFailed("records.features", f"{records.d} features, the schema has {self._schema.d}")
        if records.policy.models != "any" and self._model.reference not in records.policy.models:
            raise VerificationFailed("policy.model", "the policy of the records does not allow this model")
        binding.check_joint_coverage(prediction, records, model)
        return f"{records.count} patients, {records.d} features, model {model.name!r} {model.version!r}, all answered."

    # 6 attestation: signed by the server that logged the prediction; it says what the prediction entry says.
    def _check_attestation(self) -> str:
        def expected(issued_at: str, request_nonce: bytes) -> att.JointPredicate:
            return binding.joint_predicate(
                self._entry_bytes.__getitem__,
                self._prediction.reference.index,
                self._prediction.body,
                self._model.body,
                issued_at=issued_at,
                request_nonce=request_nonce,
                approval=self._approved,
            )

        self._predicate = self._attested(self._server, self._records.body.policy, expected)
        return f"The attestation is signed by server {self._server.name!r} and says what the log says."

    # 7 head: the ledger head that the prediction names is a past of the checkpoint; nothing was revoked under it.
    def _check_head(self) -> str:
        prediction = self._prediction.body
        used, until = (self._model, self._records), self._records.body.policy.until
        return self._past_head(prediction.checkpoint_size, prediction.checkpoint_root, used, until)

    # 8 statements: commitments, scales and bounds follow from the entries; no value can leave the integers.
    def _check_statements(self) -> str:
        prediction, records = self._prediction.body, self._records.body
        self._network = binding.network_statement(self._model.body, self._schema)
        check_network(self._network)
        listed = self._blob(records.commitments, "list of commitments")
        self._commitments = decode_point_list(listed, records.count)
        self._statements: list[JointStatement] = []
        for proof in prediction.proofs:
            self._check_proof_size(proof.digest, proof.size)
            batch = range(proof.first, proof.first + proof.count)
            statement = binding.joint_statement(
                self._model,
                self._records,
                self._owner,
                self._clinic,
                self._schema,
                prediction.session,
                batch,
                self._commitments[batch.start : batch.stop],
                (prediction.checkpoint_size, prediction.checkpoint_root),
            )
            statement.check()
            self._statements.append(statement)
        self._check_members()
        bound = rounded_up(self._network.error_bound)
        return f"Answers are exact integers of the committed model, which is within {bound} of the float model."

    def _check_members(self) -> None:
        """Every blob that the proofs need is there, before any is checked; and nothing else is."""
        prediction, records, model = self._prediction.body, self._records.body, self._model.body
        needed = [(model.certificate, "certificate")]
        needed += [(certificate, "certificate of records") for certificate in records.certificates]
        needed += [(proof.digest, "joint proof") for proof in prediction.proofs]
        for digest, what in needed:
            self._blob(digest, what)
        self._check_stray_blobs()

    # 9 certificates of the model and of every batch of records.
    def _check_certificates(self) -> str:
        records, model = self._records.body, self._model.body
        schema = self._schema.encode_json()
        certificate = self._blob(model.certificate, "certificate")
        self._once(
            "network",
            [self._entry_bytes[self._model.reference.index], schema, certificate],
            lambda: binding.verify_network_entry(model, schema, certificate, self._group),
        )
        records_entry = self._entry_bytes[self._records.reference.index]
        for number, digest in enumerate(records.certificates):
            batch = binding.batch_of(records, number)
            commitments = self._commitments[batch.start : batch.stop]
            data = self._blob(digest, "certificate of records")

            def verify(batch: range = batch, commitments: tuple[bytes, ...] = commitments, data: bytes = data) -> None:
                binding.verify_records_batch(records, self._schema, batch, commitments, data, self._group)

            parts = [records_entry, schema, b"%d" % batch.start, b"".join(commitments), data]
            self._once("committed-records", parts, verify)
        return "Weights and records are integers within their bounds, so that nothing can wrap around."

    # 10 proofs: every joint proof, over the very commitments that are handed out afterwards.
    def _check_proofs(self) -> str:
        answers: list[bytes] = []
        proofs = self._prediction.body.proofs
        for number, (proof, statement) in enumerate(zip(proofs, self._statements, strict=True)):
            found = verify_joint(statement, self._blob(proof.digest, "joint proof"), self._group)
            if answers_digest(found) != proof.answers:
                raise VerificationFailed("prediction.answers", "the proof is about other answers than the entry")
            answers += found
            self._evidence.progress("proofs", number + 1, len(proofs))
        self._answers = tuple(answers)
        return f"{len(proofs)} proof(s): every answer is the committed model's on the committed record, exactly."

    def _verified(self) -> VerifiedJointPrediction:
        return VerifiedJointPrediction(
            path=self._evidence.path,
            head=self._evidence.head,
            prediction=self._prediction,
            records=self._records,
            model=self._model,
            server=self._server,
            owner=self._owner.body,
            clinic=self._clinic.body,
            schema=self._schema,
            network=self._network,
            statements=tuple(self._statements),
            answers=self._answers,
            issued_at=self._predicate.issued_at,
            request_nonce=self._predicate.request_nonce,
            revoked_since=self._revoked_since,
            approval=self._approval,
            checks=tuple(self._evidence.checks),
            made_by=VERIFIED,
        )
