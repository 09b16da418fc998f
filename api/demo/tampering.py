"""What a dishonest server, clinic or courier could try, really carried out on copies of an honest bundle.

The forger holds everything that the dishonest party would hold: the log's signing key, the server's signing key, the
model's opening, and for one attack the clinic's signing key too. What it makes is given to the same auditor as the
honest bundle. Used by `sealproof demo` and by the tests of it; nothing else in the product imports this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.binding import parameters_of, predicate
from api.blobs import BlobStore
from api.demo.forging import BundleForger, Forgery, moved_behind
from api.entries import Prediction, Records, Reference, decode_entry, sign_entry
from api.prediction import Context, plan_proofs, predict
from api.registry import Registry
from ledger import Log, Signer
from privacy import attestation
from privacy.ckks.canonical import ResultCiphertext, decode_result, encode_result
from privacy.models.statements import ModelOpening

__all__ = ["Forger", "Forgery"]


class Forger(BundleForger):
    """Makes forged versions of one honest bundle (with its inputs) in `folder`."""

    def __init__(
        self,
        honest: Path,
        entries: Iterable[bytes],
        folder: Path,
        *,
        log_signer: Signer,
        server_key: Ed25519PrivateKey,
        owner_key: Ed25519PrivateKey,
        clinic_key: Ed25519PrivateKey,
        opening: ModelOpening,
    ) -> None:
        super().__init__(honest, entries, folder, log_signer)
        self._server_key, self._owner_key, self._clinic_key = server_key, owner_key, clinic_key
        self._opening = opening
        entry = decode_entry(self._entries[self._index])
        if not isinstance(entry.body, Prediction) or entry.author is None:
            raise TypeError("the bundle has no prediction")  # unreachable: chosen for it above
        self._prediction, self._server = entry.body, entry.author

    def all(self) -> list[Forgery]:
        """Every forgery, in the order in which the demonstration tells them."""
        server, both = "dishonest server", "dishonest server and clinic together"
        told: list[tuple[str, str, Callable[[], Path]]] = [
            (server, "one patient's score raised by one unit after the proof was made", self.raised_score),
            (server, "one secret weight changed, everything else recomputed and proved anew", self.other_weights),
            (server, "two measurements exchanged between columns before the evaluation", self.exchanged_inputs),
            (server, "a smaller error bound promised than was proved", self.smaller_error_bound),
            (server, "the proof of this prediction presented for a repetition of it", self.replayed_proof),
            (both, "the clinic's key registered after its records", self.late_key),
            ("dishonest ledger", "a ledger signed by somebody else under the same name", self.foreign_ledger),
            ("model owner", "the attestation signed by the model owner instead of the server", self.other_signer),
            ("courier", "one byte of the file changed on the way", self.flipped_byte),
        ]
        return [Forgery(attacker, what, make()) for attacker, what, make in told]

    # -- a dishonest server, with its own keys ------------------------------------------------------------------------

    def raised_score(self) -> Path:
        """Add one answer unit to the first patient's coefficient in every prime; sign and log everything again."""
        params = parameters_of(self._records().parameter_set)
        first = self._prediction.proofs[0]
        result = decode_result(params, self._blob(first.results[0]))
        c0 = result.c0.copy()
        for level, q in enumerate(params.primes):
            c0[level, 0] = (int(c0[level, 0]) + (1 << params.D)) % q
        forged = encode_result(params, ResultCiphertext(result.positions, c0, result.c1))
        proof = replace(first, results=(sha256(forged).digest(), *first.results[1:]))
        body = replace(self._prediction, proofs=(proof, *self._prediction.proofs[1:]))
        return self._publish("raised-score", body, replaced={first.results[0]: forged})

    def other_weights(self) -> Path:
        """Evaluate and prove with a model that is not the committed one."""
        output = self._opening.outputs[0]
        weights = (output.weights[0] + (1 << 20), *output.weights[1:])
        opening = replace(self._opening, outputs=(replace(output, weights=weights), *self._opening.outputs[1:]))
        return self._predict_again("other-weights", opening, lambda digests: digests)

    def exchanged_inputs(self) -> Path:
        """Evaluate and prove with the ciphertexts of the first two measurements exchanged."""
        return self._predict_again(
            "exchanged-inputs", self._opening, lambda digests: (digests[1], digests[0], *digests[2:])
        )

    def smaller_error_bound(self) -> Path:
        """Halve the error bound in entry and attestation."""
        bound = self._prediction.error_bound
        return self._publish(
            "smaller-error-bound", replace(self._prediction, error_bound=replace(bound, error=bound.error // 2))
        )

    def replayed_proof(self) -> Path:
        """Log the same results and proof once more, as if they had been made under the newer ledger head."""
        with self._open_log("replayed-proof") as log:
            head = log.head()
            body = replace(self._prediction, checkpoint_size=head.size, checkpoint_root=head.root)
            return self._log_and_write("replayed-proof", log, body)

    # -- others -------------------------------------------------------------------------------------------------------

    def late_key(self) -> Path:
        """Write the ledger anew with the key entry behind the records entry, which the clinic signs again for it."""
        key, records = self._prediction.key, self._prediction.records
        entry = decode_entry(self._entries[records.index])
        if not isinstance(entry.body, Records):
            raise TypeError("the prediction's records are no records entry")  # unreachable in an honest bundle

        def moved(index: int) -> int:
            return moved_behind(index, key.index, records.index)

        late_key = Reference(moved(key.index), key.leaf)
        new_records = sign_entry(replace(entry.body, key=late_key), entry.author, self._clinic_key)
        entries = list(self._entries)
        entries[records.index] = new_records
        entries.insert(records.index, entries.pop(key.index))
        model = Reference(moved(self._prediction.model.index), self._prediction.model.leaf)
        body = replace(
            self._prediction, key=late_key, model=model, records=Reference.to(moved(records.index), new_records)
        )
        with self._open_log("late-key", entries) as log:
            return self._log_and_write("late-key", log, body, members={moved(i) for i in self._members})

    def foreign_ledger(self) -> Path:
        """The same entries in a ledger of the same name under a key of the attacker's."""
        with self._open_log("foreign-ledger", signer=Signer.generate(self._signer.name)) as log:
            return self._log_and_write("foreign-ledger", log, self._prediction)

    def other_signer(self) -> Path:
        """The attestation under another registered key."""
        payload = attestation.decode_envelope(self._envelope).payload_bytes()
        envelope = attestation.sign_payload(payload, attestation.PAYLOAD_TYPE, self._owner_key)
        with self._open_log("other-signer") as log:
            return self._write(
                "other-signer", log, self._prediction.checkpoint_size, envelope, self._blobs, self._members
            )

    def flipped_byte(self) -> Path:
        """One byte in the middle of the file."""
        data = bytearray(self._honest.read_bytes())
        data[len(data) // 2] ^= 1
        path = self._folder / "flipped-byte.sealproof"
        path.write_bytes(data)
        return path

    # -- tools --------------------------------------------------------------------------------------------------------

    def _predict_again(
        self, name: str, opening: ModelOpening, see: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
    ) -> Path:
        """Evaluate and prove honestly, but for a model or inputs that are not the committed ones."""
        store = _Misread(self._folder / f"{name}-blobs", self._records().ciphertexts, see)
        for blob in self._blobs:
            store.put(blob)
        with self._open_log(name) as log:
            registry = Registry.read(log)
            context = Context.of(registry, self._prediction.records.index, self._prediction.model.index)
            plan = plan_proofs(context.records.body, context.model.body, 64)
            head = log.head()
            body = predict(context, opening, store, plan, (head.size, head.root), lambda done: None)
            made = [store.get(digest) for proof in body.proofs for digest in (proof.digest, *proof.results)]
            old = {d for proof in self._prediction.proofs for d in (proof.digest, *proof.results)}
            kept = [blob for blob in self._blobs if sha256(blob).digest() not in old]
            return self._log_and_write(name, log, body, blobs=[*kept, *made])

    def _publish(self, name: str, body: Prediction, replaced: dict[bytes, bytes] | None = None) -> Path:
        with self._open_log(name) as log:
            return self._log_and_write(name, log, body, blobs=self._replaced(*(replaced or {}).items()))

    def _log_and_write(
        self,
        name: str,
        log: Log,
        body: Prediction,
        *,
        blobs: list[bytes] | None = None,
        members: set[int] | None = None,
    ) -> Path:
        """Log a prediction as the server, attest it, and write its bundle."""
        index = log.append(sign_entry(body, self._server, self._server_key)).index
        said = predicate(log.entry, index, body, self._records(), issued_at=self._issued_at, request_nonce=self._nonce)
        envelope = attestation.sign_statement(said, self._server_key)
        members = {*(members or self._members) - {self._index}, index}
        return self._write(name, log, body.checkpoint_size, envelope, blobs or self._blobs, members)

    def _records(self) -> Records:
        body = decode_entry(self._entries[self._prediction.records.index]).body
        if not isinstance(body, Records):
            raise TypeError("the prediction's records are no records entry")  # unreachable in an honest bundle
        return body


class _Misread(BlobStore):
    """A blob store that shows the list of input digests as the forger wants it seen."""

    def __init__(self, folder: Path, listed: bytes, see: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> None:
        super().__init__(folder)
        self._listed, self._see = listed, see

    def get(self, digest: bytes) -> bytes:
        data = super().get(digest)
        if digest != self._listed:
            return data
        return b"".join(self._see(tuple(data[i : i + 32] for i in range(0, len(data), 32))))
