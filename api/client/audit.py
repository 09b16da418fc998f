"""The auditor: verify a bundle, offline, without any secret and without an FHE library.

`verify_bundle` takes these steps, the cheap ones first. Each is restated beside its code.

 1 bundle       the file is a bundle, and every blob in it has the digest it is named by
 2 log          one checkpoint, signed by a trusted log; every entry is in that log at its index
 3 entries      every entry is signed by its author's registered key, in the right role and under the right name
 4 order        key < records, {model, records} < prediction, every author older than what it signed
 5 references   prediction, records, key, model, schema, policy and coverage belong together
 6 attestation  signed by the server that logged the prediction; it says what the prediction entry says, field by field
 7 head         the ledger head that the prediction names is a past of the checkpoint; nothing was revoked under it
 8 statements   input digests, positions, blur and error bound follow from the entries
 9 certificates of key and model, and every zero-weight statement
10 proofs       every evaluation proof, over the very bytes that are handed out afterwards

What is proved, and what is not: docs/spec/protocol.md, sections 0, 5 and 9. Nothing is read from a proof or from the
attestation that is not compared with the ledger or recomputed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

import ledger as log
from api import binding
from api.binding import Located, ProofGroup
from api.client.history import LedgerAccess, Written, check_history
from api.client.prediction import VERIFIED, Check, VerifiedPrediction, rounded_up
from api.client.trust import TrustStore
from api.client.verified_cache import VerifiedCache
from api.consistency import ConsistencyProof
from api.entries import (
    AnyEntry,
    Body,
    ErrorBound,
    Key,
    Model,
    Party,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    decode_digest_list,
    decode_entry,
    verify_signature,
)
from ledger.merkle import leaf_hash
from ledger.note import Note, NoteVerifier
from privacy import attestation as att
from privacy.bundle import BundleReader
from privacy.canonical_json import parse_timestamp
from privacy.ckks.canonical import ResultCiphertext, decode_input, decode_public_key, decode_result
from privacy.ckks.evaluation_proof import EvaluationStatement
from privacy.ckks.evaluation_verifier import verify_evaluation
from privacy.ckks.keys import derive_p1
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.certificate import check_statement
from privacy.models.schema import Schema
from privacy.models.statements import verify_zero_weight
from privacy.zk.group import ARKWORKS, Group

__all__ = ["Progress", "verify_bundle"]

Progress = Callable[[str, int, int], None]
"""(step, done, total)."""

BodyT = TypeVar("BodyT", Party, Key, Model, Records, Prediction)

_ROLES: Final = {Key: "clinic", Records: "clinic", Model: "owner", Prediction: "server"}


def verify_bundle(
    path: Path,
    log_key: NoteVerifier | Sequence[NoteVerifier] | TrustStore,
    *,
    group: Group = ARKWORKS,
    ledger: LedgerAccess | None = None,
    nonce: bytes | None = None,
    progress: Progress | None = None,
    cache: VerifiedCache | None = None,
) -> VerifiedPrediction:
    """Verify everything that a bundle claims.

    `log_key`: the keys of trusted logs; with a `TrustStore` the head is also compared with the last one seen, and kept.
    `ledger`: where to ask for inputs that the bundle leaves out, for revocations and for the present head; without it
    the bundle must carry its inputs, and revocation rests on the server's word at the head that it names. `nonce`: what
    the client sent with its request, to be found in the attestation. `cache`: of certificates verified before.

    Raises:
        VerificationFailed: with the name of the check.
        DecodeError: malformed bytes.
        OSError: the file, or the server, cannot be read.
    """
    with ExitStack() as stack:
        audit = _Audit(stack, path, log_key, group, ledger, nonce, progress, cache)
        return audit.run()


class _Audit:
    """One verification; attributes appear as the steps establish them."""

    def __init__(
        self,
        stack: ExitStack,
        path: Path,
        log_key: NoteVerifier | Sequence[NoteVerifier] | TrustStore,
        group: Group,
        ledger: LedgerAccess | None,
        nonce: bytes | None,
        progress: Progress | None,
        cache: VerifiedCache | None,
    ) -> None:
        self._stack = stack
        self._path = path
        self._log_key = log_key
        self._group = group
        self._ledger = ledger
        self._nonce = nonce
        self._progress = progress or (lambda step, done, total: None)
        self._cache = cache
        self._checks: list[Check] = []
        self._used_blobs: set[bytes] = set()
        self._revoked_since: tuple[Reference, ...] = ()

    def run(self) -> VerifiedPrediction:
        """All steps, in order."""
        steps: list[tuple[str, Callable[[], str]]] = [
            ("bundle", self._read_bundle),
            ("log", self._check_log),
            ("entries", self._check_entries),
            ("order", self._check_order),
            ("references", self._check_references),
            ("attestation", self._check_attestation),
            ("head", self._check_head),
            ("statements", self._check_statements),
            ("certificates", self._check_certificates),
            ("proofs", self._check_proofs),
        ]
        for place, (name, step) in enumerate(steps):
            self._progress(name, place, len(steps))
            started = time.perf_counter()
            with _translated(name):
                sentence = step()
            self._checks.append(Check(name, sentence, time.perf_counter() - started))
        self._progress("done", len(steps), len(steps))
        return VerifiedPrediction(
            path=self._path,
            head=self._head,
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
            checks=tuple(self._checks),
            made_by=VERIFIED,
        )

    # 1 bundle: the file is a bundle, and every blob in it has the digest it is named by.
    def _read_bundle(self) -> str:
        self._reader = self._stack.enter_context(BundleReader(self._path))
        self._reader.check()
        blobs = sum(1 for _ in self._reader.blob_digests())
        return f"The file is a well-formed bundle of {len(self._reader.entry_indices())} log entries and {blobs} blobs."

    # 2 log: one checkpoint, signed by a trusted log; every entry is in that log at its index.
    def _check_log(self) -> str:
        indices = self._reader.entry_indices()
        proofs = {index: log.TlogProof.parse(self._reader.inclusion_proof(index)) for index in indices}
        if len({proof.checkpoint for proof in proofs.values()}) != 1:
            raise VerificationFailed("log.checkpoint", "the inclusion proofs are not all under one checkpoint")
        checkpoint = next(iter(proofs.values())).checkpoint
        self._log_verifier = self._trusted_key(log.Checkpoint.parse(Note.parse(checkpoint).text).origin)
        origin = self._log_verifier.name
        self._entry_bytes: dict[int, bytes] = {}
        for index, proof in proofs.items():
            if proof.index != index:
                raise VerificationFailed("log.index", f"entry {index} comes with the proof of entry {proof.index}")
            if proof.extra is not None:
                raise VerificationFailed("log.extra", f"the proof of entry {index} carries data that nothing signs")
            verified = proof.verify(self._reader.entry(index), self._log_verifier, origin)
            self._entry_bytes[index] = verified.entry
            self._head = verified.head
        return f"All {len(indices)} entries are in the log {origin!r} of {self._head.size} entries that its key signed."

    def _trusted_key(self, origin: str) -> NoteVerifier:
        if isinstance(self._log_key, TrustStore):
            found: NoteVerifier | None = self._log_key.find(origin)
        else:
            keys = self._log_key if isinstance(self._log_key, Sequence) else [self._log_key]
            found = next((key for key in keys if key.name == origin), None)
        if found is None:
            raise VerificationFailed(
                "log.untrusted",
                f"no trusted key for the log {origin!r}: get its key from its operator, not from this bundle, and "
                "give it with --log-key, or trust it for good with `sealproof trust add`",
            )
        return found

    # 3 entries: every entry is signed by its author's registered key, in the right role and under the right name.
    def _check_entries(self) -> str:
        self._entries: dict[int, AnyEntry] = {i: decode_entry(data) for i, data in self._entry_bytes.items()}
        predictions = [i for i, entry in self._entries.items() if isinstance(entry.body, Prediction)]
        if len(predictions) != 1:
            raise VerificationFailed("entry.prediction", f"{len(predictions)} predictions in the bundle, expected one")
        self._prediction, self._server_index = self._signed(
            Reference.to(predictions[0], self._entry_bytes[predictions[0]]), Prediction
        )
        body = self._prediction.body
        self._records, records_author = self._signed(body.records, Records)
        self._model, owner_index = self._signed(body.model, Model)
        self._key, key_author = self._signed(body.key, Key)
        self._server, self._owner = self._party(self._server_index), self._party(owner_index)
        clinic = self._party(key_author)
        if records_author != key_author:
            raise VerificationFailed("entry.author", "records and key entry have different authors")
        for what, name in (("key", self._key.body.clinic), ("records", self._records.body.clinic)):
            if name != clinic.name:
                raise VerificationFailed("entry.name", f"the {what} of {name!r} were logged by {clinic.name!r}")
        self._authors = {
            self._prediction.reference.index: self._server_index,
            self._records.reference.index: records_author,
            self._model.reference.index: owner_index,
            self._key.reference.index: key_author,
        }
        stray = set(self._entries) - set(self._authors) - set(self._authors.values())
        if stray:
            raise VerificationFailed("bundle.stray", f"entry {min(stray)} has nothing to do with this prediction")
        return f"Signed by clinic {clinic.name!r}, model owner {self._owner.name!r} and server {self._server.name!r}."

    def _signed(self, reference: Reference, kind: type[BodyT]) -> tuple[Located[BodyT], int]:
        """The entry of this kind, its signature and its author's role checked; and its author's index."""
        entry = self._referenced(reference)
        if not isinstance(entry.body, kind) or entry.author is None:
            raise VerificationFailed("entry.kind", f"entry {reference.index} is no {kind.KIND} entry")
        author = self._referenced(entry.author)
        party = author.body
        if not isinstance(party, Party):
            raise VerificationFailed("entry.author", f"the author of entry {reference.index} is no party")
        verify_signature(author, party.public_key)
        verify_signature(entry, party.public_key)
        if party.role != _ROLES[kind]:
            raise VerificationFailed(
                "entry.role", f"entry {reference.index} was signed by a {party.role}, not by a {_ROLES[kind]}"
            )
        return Located(reference, entry.body), entry.author.index

    def _referenced(self, reference: Reference) -> AnyEntry:
        if reference.index not in self._entries:
            raise VerificationFailed("bundle.missing-entry", f"entry {reference.index} is not in the bundle")
        if leaf_hash(self._entry_bytes[reference.index]) != reference.leaf:
            raise VerificationFailed("entry.reference", f"a reference to entry {reference.index} has another leaf hash")
        return self._entries[reference.index]

    def _party(self, index: int) -> Party:
        body: Body = self._entries[index].body
        if not isinstance(body, Party):
            raise VerificationFailed("entry.author", f"entry {index} is no party")
        return body

    # 4 order: key < records, {model, records} < prediction, every author older than what it signed.
    def _check_order(self) -> str:
        key, model, records = self._key.reference, self._model.reference, self._records.reference
        binding.check_order(key, model, records, self._prediction.reference)
        for index, author in self._authors.items():
            if not author < index:
                raise VerificationFailed("ledger.order", f"entry {index} is older than its author's registration")
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
        statement = att.verify_envelope(self._reader.attestation(), self._server.public_key)
        self._predicate = found = statement.predicate
        # What it must say follows from the ledger alone; its time and nonce are its own.
        expected = binding.predicate(
            self._entry_bytes.__getitem__,
            self._prediction.reference.index,
            self._prediction.body,
            self._records.body,
            issued_at=found.issued_at,
            request_nonce=found.request_nonce,
        )
        for field in fields(att.Predicate):
            if getattr(found, field.name) != getattr(expected, field.name):
                name = field.name.replace("_", "-")
                raise VerificationFailed(f"attestation.{name}", "the attestation and the prediction entry differ")
        if self._nonce is not None and found.request_nonce != self._nonce:
            raise VerificationFailed("attestation.nonce", "this answers another request")
        until = self._records.body.policy.until
        if until is not None and parse_timestamp(until) < parse_timestamp(found.issued_at):
            raise VerificationFailed("policy.expired", f"the records were to be used until {until}, not later")
        return f"The attestation is signed by server {self._server.name!r} and says what the log says."

    # 7 head: the ledger head that the prediction names is a past of the checkpoint; nothing was revoked under it.
    def _check_head(self) -> str:
        prediction, index = self._prediction.body, self._prediction.reference.index
        size = prediction.checkpoint_size
        if not size <= index:
            raise VerificationFailed("head.future", f"prediction {index} names a head of {size} entries, after itself")
        newest = max((*(i for i in self._authors if i != index), *self._authors.values()))
        if not size > newest:
            raise VerificationFailed("head.stale", f"the head of {size} entries is older than entry {newest}")
        proof = ConsistencyProof.parse(self._reader.consistency_proof())
        if (proof.old, proof.new) != (size, self._head.size):
            raise VerificationFailed("head.consistency", f"a proof from {proof.old} to {proof.new} entries is another")
        log.verify_consistency(size, self._head.size, proof.hashes, prediction.checkpoint_root, self._head.root)
        store = self._log_key if isinstance(self._log_key, TrustStore) else None
        if store is not None:
            store.observe(self._head, self._ledger.consistency if self._ledger else None)
        sentence = f"The prediction was made on a log of {size} entries, which the signed one extends."
        if self._ledger is None:
            return sentence + " Revocations were not looked up: there is no connection to the ledger."
        self._revoked_since = check_history(
            self._ledger,
            self._log_verifier,
            self._head,
            store,
            [self._written(located) for located in (self._key, self._model, self._records)],
            index,
            {self._party(author).name: author for author in self._authors.values()},
        )
        return sentence + " Nothing that it uses had been revoked before it."

    def _written(self, located: Located[Key] | Located[Model] | Located[Records]) -> Written:
        author = self._authors[located.reference.index]
        return Written(located.reference, author, self._party(author).public_key)

    # 8 statements: input digests, positions, blur and error bound follow from the entries.
    def _check_statements(self) -> str:
        prediction, records, model = self._prediction.body, self._records.body, self._model.body
        per_block = records.d if records.packing == "columns" else 1
        listed = self._blob(records.ciphertexts, "list of input digests")
        self._inputs = decode_digest_list(listed, records.blocks * per_block)
        self._statements: list[EvaluationStatement] = []
        for proof in prediction.proofs:
            if self._reader.has(proof.digest) and len(self._blob(proof.digest, "proof")) != proof.size:
                raise VerificationFailed("prediction.proof-size", f"the proof has not {proof.size} bytes")
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
        needed += [(statement.proof, "zero-weight proof") for statement in model.statements]
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
        stray = set(self._reader.blob_digests()) - self._used_blobs - set(self._inputs)
        if stray:
            raise VerificationFailed("bundle.stray", f"blob {min(stray).hex()} has nothing to do with this prediction")

    def _blob(self, digest: bytes, what: str) -> bytes:
        if not self._reader.has(digest):
            raise VerificationFailed("bundle.missing-blob", f"{what} {digest.hex()} is not in the bundle")
        self._used_blobs.add(digest)
        return self._reader.blob(digest)

    # 9 certificates of key and model, and every zero-weight statement.
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
        zero = [self._blob(s.proof, "zero-weight proof") for s in model.statements]

        def verify_model() -> None:
            verified = binding.verify_model_entry(model, self._schema.encode_json(), certificate, self._group)
            for stated, proof in zip(model.statements, zero, strict=True):
                verify_zero_weight(verified, stated.output, stated.feature, proof)

        self._once("model", [model_entry, self._schema.encode_json(), certificate, *zero], verify_model)
        also = f" {len(zero)} weights are proven zero." if zero else ""
        return f"The key is honest, and the model's weights are bounded, so that no answer can wrap around.{also}"

    def _once(self, kind: str, parts: list[bytes], verify: Callable[[], object]) -> None:
        """Verify unless this machine has verified exactly these bytes before."""
        if self._cache is None:
            verify()
            return
        mark = self._cache.mark(f"{kind}/{self._group.name}", parts)
        if not self._cache.knows(mark):
            verify()
            self._cache.remember(mark)

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
                lambda block, blocks, done=done: self._progress("proofs", done + block, total),  # type: ignore[misc]
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


@contextmanager
def _translated(step: str) -> Iterator[None]:
    """Errors of the ledger package in the terms of this one. A nonsensical call made by the data is a failed check."""
    try:
        yield
    except log.DecodeError as error:
        raise DecodeError(error.what, error.reason) from error
    except log.VerificationFailed as error:
        raise VerificationFailed(error.check, error.detail) from error
    except log.StorageError as error:
        raise OSError(str(error)) from error
    except (UsageError, log.UsageError) as error:
        raise VerificationFailed(f"{step}.impossible", str(error)) from error
