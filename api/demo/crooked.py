"""What a crooked clinic could show an insurer, alone or with the server and its ledger: really made, and signed.

The clinic holds its signing key, its secret CKKS key and the blindings of its certificate, the server its signing key
and the log's. Whatever is signed is signed properly, whatever can be proven is proven; so each forgery fails at the one
thing that is not so. Used by `sealproof demo` and by the tests of it; nothing else in the product imports this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.binding import predicate
from api.client.disclosure_statements import encrypted_statement, result_digests
from api.client.handles import RecordHandles
from api.client.prediction import VerifiedPrediction
from api.consent import GrantDocument
from api.demo.forging import BundleForger, Forgery
from api.entries import Disclosure, Grant, Prediction, Reference, decode_entry, sign_entry
from ledger import Log, Signer
from privacy import attestation
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown, verify_shown
from privacy.ckks.canonical import ResultCiphertext, decode_result, encode_result
from privacy.ckks.disclosure import DisclosureStatement
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.ckks.key_certificate import KeyOpenings, certify_key, verify_key_certificate
from privacy.ckks.keys import ClinicKeys
from privacy.zk.group import ARKWORKS

__all__ = ["CrookedClinic", "Crooks"]

_PAST = "2020-01-01T00:00:00Z"
_OTHER_PURPOSE = "medical research"


@dataclass(frozen=True)
class Crooks:
    """What the two of them hold."""

    clinic_key: Ed25519PrivateKey
    keys: ClinicKeys
    openings: KeyOpenings
    handles: RecordHandles
    server_key: Ed25519PrivateKey
    log_signer: Signer


class CrookedClinic(BundleForger):
    """Makes forged versions of one honest disclosure of a threshold, in `folder`.

    `verified` is the honest prediction. `low` is a patient whose answer does not reach the threshold.
    """

    def __init__(
        self,
        honest: Path,
        entries: Iterable[bytes],
        folder: Path,
        crooks: Crooks,
        verified: VerifiedPrediction,
        low: int,
    ) -> None:
        super().__init__(honest, entries, folder, crooks.log_signer)
        self._crooks, self._verified, self._low = crooks, verified, low
        indices = [i for i in self._members if isinstance(decode_entry(self._entries[i]).body, Disclosure)]
        self._shown_at = indices[0]
        entry = decode_entry(self._entries[self._shown_at])
        if not isinstance(entry.body, Disclosure) or entry.author is None or entry.body.grant is None:
            raise TypeError("the bundle has no disclosure under a grant")  # unreachable: chosen for it
        self._body, self._clinic, self._grant_at = entry.body, entry.author, entry.body.grant.index
        grant = decode_entry(self._entries[self._grant_at]).body
        if not isinstance(grant, Grant):
            raise TypeError("the grant is no grant")  # unreachable in an honest bundle
        self._grant = grant
        self._consent = GrantDocument.decode(self._blob(grant.document))
        envelope = self._blob(self._body.statement)
        self._shown = verify_shown(envelope, crooks.clinic_key.public_key().public_bytes_raw())
        (self._answer,) = self._shown.answers
        self._proof = self._blob(self._body.proof)

    def all(self) -> list[Forgery]:
        """Every forgery, in the order in which the demonstration tells them."""
        clinic, both = "crooked clinic", "crooked clinic and server together"
        told: list[tuple[str, str, Callable[[], Path]]] = [
            (clinic, "a threshold one step higher than was proven", self.higher_threshold),
            (clinic, "an interval that the score is just outside of", self.just_outside),
            (clinic, "the same number once around the modulus: thousands instead of a few", self.around_the_modulus),
            (clinic, "another patient's answer under this patient's name", self.other_position),
            (clinic, "this patient's proof under another patient's name", self.other_name),
            (clinic, "a second key, made until the old record decrypts to a high score", self.second_key),
            (clinic, "a consent that was given for another purpose", self.other_purpose),
            (clinic, "a consent that had ended", self.expired),
            (clinic, "more than was consented to", self.more_than_granted),
            (clinic, "no consent on the ledger at all", self.no_grant),
            (
                both,
                "the server raises the patient's result, and the clinic honestly shows what it decrypts to",
                self.raised,
            ),
            (
                both,
                "a record of another prediction, logged for this purpose, with the proof of the first",
                self.swapped,
            ),
        ]
        return [Forgery(attacker, what, make()) for attacker, what, make in told]

    # -- the clinic alone ---------------------------------------------------------------------------------------------

    def higher_threshold(self) -> Path:
        """Say a higher threshold, with the proof of the lower one."""
        return self._show("higher-threshold", [replace(self._answer, value=self._answer.value + 1)], self._proof)

    def just_outside(self) -> Path:
        """Prove the exact score of the low patient, and say an interval that begins where the true one ends."""
        true = self._exact(self._low)
        proof = self._prove([true])
        return self._show("just-outside", [replace(true, value=true.value + 2 * true.tolerance)], proof, granted=True)

    def around_the_modulus(self) -> Path:
        """The answer plus Q: the same decryption mod Q, and a number that no answer is."""
        true, params = self._exact(self._low), self._verified.statements[0].params
        step = 1 << (params.D - self._shown.grid_bits)
        wrapped = replace(true, value=true.value + round(params.Q / step))
        return self._show("around-the-modulus", [wrapped], self._prove([true]), granted=True)

    def other_position(self) -> Path:
        """The place of the high patient, whose answer reaches the threshold, under the name of the low one."""
        name = self._named(self._low)
        answer = replace(self._answer, record_id=name.record_id, salt=name.salt, path=name.path)
        return self._show("other-position", [answer], self._prove([self._answer]), granted=True)

    def other_name(self) -> Path:
        """The low patient's own place and name, with the proof about the high one."""
        answer = self._named(self._low)
        return self._show("other-name", [answer], self._prove([self._answer]), granted=True)

    def second_key(self) -> Path:
        """Make keys until the low patient's result decrypts to something above the threshold, and prove that."""
        answer, keys = self._named(self._low), self._crooks.keys
        statement = self._statement([answer])
        result = self._results()(statement.answers[0].results[0])
        low, high = statement.interval(statement.answers[0])
        place = int((result.positions == statement.answers[0].position).nonzero()[0][0])
        while True:
            other = ClinicKeys.generate(keys.params, keys.clinic_id, keys.number + 1)
            if low <= other.decrypt_integers_unverified(result)[place] < high:
                break
        certificate, openings = certify_key(
            keys.params, keys.clinic_id, other.number, other.public.p0, other.s, other.e_pk
        )
        found = verify_key_certificate(keys.params, keys.clinic_id, other.number, other.public.p0, certificate)
        about = replace(statement, C_plus=ARKWORKS.encode(found.C_plus), C_minus=ARKWORKS.encode(found.C_minus))
        proof = prove_disclosure(about, self._results(), other.s, openings)
        return self._show("second-key", [answer], proof, granted=True)

    def other_purpose(self) -> Path:
        """Log a grant for another purpose, and show under it."""
        document = replace(self._consent, purpose=_OTHER_PURPOSE)
        return self._show("other-purpose", [self._answer], None, document=document)

    def expired(self) -> Path:
        """Log a grant that ended long ago, and show under it."""
        return self._show("expired", [self._answer], None, document=replace(self._consent, until=_PAST))

    def more_than_granted(self) -> Path:
        """Show the exact score, too, which nobody was allowed to see."""
        high = self._exact(self._answer.patient)
        return self._show("more-than-granted", [self._answer, high], None)

    def no_grant(self) -> Path:
        """Log the disclosure without naming a grant."""
        return self._show("no-grant", [self._answer], None, name_grant=False)

    # -- the clinic with the server and its ledger --------------------------------------------------------------------

    def raised(self) -> Path:
        """Add units to the low patient's coefficient in every prime, log that as a prediction, and disclose it."""
        answer = self._named(self._low)
        statement = self._statement([answer])
        (old,) = statement.answers[0].results
        params = statement.params
        result = decode_result(params, self._blob(old))
        place = int((result.positions == statement.answers[0].position).nonzero()[0][0])
        low, _ = statement.interval(statement.answers[0])
        short = low - self._crooks.keys.decrypt_integers_unverified(result)[place]
        c0 = result.c0.copy()
        for level, q in enumerate(params.primes):
            c0[level, place] = (int(c0[level, place]) + short + (1 << params.D)) % q
        forged = encode_result(params, ResultCiphertext(result.positions, c0, result.c1))
        new = sha256(forged).digest()
        proofs = tuple(
            replace(proof, results=tuple(new if digest == old else digest for digest in proof.results))
            for proof in self._verified.prediction.body.proofs
        )
        return self._on_another_prediction(
            "raised-result", replace(self._verified.prediction.body, proofs=proofs), answer, {old: forged}
        )

    def swapped(self) -> Path:
        """Log the same prediction once more under a newer head; the answer is true, its prediction was never proven."""
        with self._open_log("head") as log:
            head = log.head()
        body = replace(self._verified.prediction.body, checkpoint_size=head.size, checkpoint_root=head.root)
        return self._on_another_prediction("other-prediction", body, self._answer, {})

    def _on_another_prediction(
        self, name: str, body: Prediction, answer: ShownAnswer, replaced: dict[bytes, bytes]
    ) -> Path:
        crooks, verified = self._crooks, self._verified
        with self._open_log(name) as log:
            server = decode_entry(self._entries[self._index]).author
            index = log.append(sign_entry(body, server, crooks.server_key)).index
            said = predicate(
                log.entry,
                index,
                body,
                verified.records.body,
                issued_at=self._issued_at,
                request_nonce=self._nonce,
            )
            envelope = attestation.sign_statement(said, crooks.server_key)
            blobs = self._replaced(*replaced.items())
            located = Reference.to(index, log.entry(index))
            statement = replace(self._statement([answer]), prediction_id=located.leaf)
            digests = {old: sha256(new).digest() for old, new in replaced.items()}
            (one,) = statement.answers
            one = replace(one, results=tuple(digests.get(digest, digest) for digest in one.results))
            statement = replace(statement, answers=(one,))
            by_digest = {sha256(blob).digest(): blob for blob in blobs}
            # The old consent names the high patient; the clinic consents to this, too.
            grant, document = self._log_grant(log, self._covering(answer))
            statement = replace(statement, grant_id=grant.leaf)
            proof = prove_disclosure(
                statement,
                lambda digest: decode_result(statement.params, by_digest[digest]),
                crooks.keys.s,
                crooks.openings,
            )
            answer = replace(answer, result=one.results[0])
            shown = replace(self._shown, prediction=LedgerReference.to(index, log.entry(index)))
            members = (self._members - {self._index}) | {index}
            return self._finish(
                name, log, [answer], proof, grant, document, shown, located, envelope, blobs, members, body
            )

    # -- tools --------------------------------------------------------------------------------------------------------

    def _results(self) -> Callable[[bytes], ResultCiphertext]:
        params = self._verified.statements[0].params
        return lambda digest: decode_result(params, self._blob(digest))

    def _statement(self, answers: Sequence[ShownAnswer], grant_id: bytes | None = None) -> DisclosureStatement:
        grant_id = self._shown.grant.leaf if grant_id is None else grant_id
        return encrypted_statement(self._verified, grant_id, self._shown.recipient_nonce, answers)

    def _prove(self, answers: Sequence[ShownAnswer], grant_id: bytes | None = None) -> bytes:
        crooks = self._crooks
        return prove_disclosure(self._statement(answers, grant_id), self._results(), crooks.keys.s, crooks.openings)

    def _named(self, patient: int) -> ShownAnswer:
        """The honest answer's question about another patient, with that patient's own handle."""
        handles = self._crooks.handles
        return replace(
            self._answer,
            patient=patient,
            result=result_digests(self._verified, patient, self._answer.output)[0],
            record_id=handles.ids[patient],
            salt=handles.salts[patient],
            path=tuple(handles.path(patient)),
        )

    def _exact(self, patient: int) -> ShownAnswer:
        """What is true of a patient's score, to within one step."""
        named = self._named(patient)
        statement = self._statement([named])
        result = self._results()(named.result)
        place = int((result.positions == statement.answers[0].position).nonzero()[0][0])
        M, step = self._crooks.keys.decrypt_integers_unverified(result)[place], statement.step
        return replace(named, kind="exact", value=(M + step // 2) // step, tolerance=1)

    def _covering(self, answer: ShownAnswer) -> GrantDocument:
        """A consent that lists this very question: where the trick is another one, consent is not what fails."""
        (question,) = self._consent.questions
        asked = replace(
            question,
            record=answer.record_id,
            kind=answer.kind,
            value=answer.value if answer.kind == "threshold" else 0,
            tolerance=answer.tolerance,
        )
        # A grant of its own accord: the request was about somebody else.
        return replace(self._consent, consumer=None, request=None, questions=(asked,))

    def _log_grant(self, log: Log, document: GrantDocument) -> tuple[Reference, GrantDocument]:
        request = None if document.request is None else self._grant.request
        body = Grant(request, document.digest, document.until)
        entry = sign_entry(body, self._clinic, self._crooks.clinic_key)
        return Reference.to(log.append(entry).index, entry), document

    def _show(
        self,
        name: str,
        answers: Sequence[ShownAnswer],
        proof: bytes | None,
        *,
        document: GrantDocument | None = None,
        granted: bool = False,
        name_grant: bool = True,
    ) -> Path:
        """A disclosure of `answers`, proven anew where no proof is given.

        `document`: under a grant that says this. `granted`: under one that lists exactly what is shown.
        """
        with self._open_log(name) as log:
            if granted:
                document = self._covering(answers[0])
            grant, said = (self._body.grant, self._consent) if document is None else self._log_grant(log, document)
            if grant is None:
                raise TypeError("no grant")  # unreachable: checked in the beginning
            if proof is None:
                proof = self._prove(answers, grant.leaf)
            return self._finish(
                name,
                log,
                answers,
                proof,
                grant,
                said,
                self._shown,
                self._verified.prediction.reference,
                self._envelope,
                self._blobs,
                self._members,
                self._verified.prediction.body,
                name_grant=name_grant,
            )

    def _finish(
        self,
        name: str,
        log: Log,
        answers: Sequence[ShownAnswer],
        proof: bytes,
        grant: Reference,
        document: GrantDocument,
        shown: Shown,
        prediction: Reference,
        envelope: bytes,
        blobs: Sequence[bytes],
        members: Iterable[int],
        body: Prediction,
        *,
        name_grant: bool = True,
    ) -> Path:
        """Sign what is shown, log it, and write the bundle of it."""
        signed = sign_shown(
            replace(
                shown,
                grant=LedgerReference.to(grant.index, log.entry(grant.index)),
                answers=tuple(answers),
                proof=Shown.proof_reference(proof),
            ),
            self._crooks.clinic_key,
        )
        told = Disclosure(
            prediction, sha256(signed).digest(), sha256(proof).digest(), grant if name_grant else None, None
        )
        index = log.append(sign_entry(told, self._clinic, self._crooks.clinic_key)).index
        dropped = {self._body.statement, self._body.proof}
        asked = self._asked() if document.request is None else set()
        dropped |= {self._grant.document} if document != self._consent else set()
        kept = [blob for blob in blobs if sha256(blob).digest() not in dropped | self._asked_blobs(document)]
        kept += [signed, proof, *([document.encode()] if document != self._consent else [])]
        found = set(members) - {self._shown_at} - asked | {index, grant.index}
        found -= {self._grant_at} if grant.index != self._grant_at else set()
        return self._write(name, log, body.checkpoint_size, envelope, kept, found)

    def _asked(self) -> set[int]:
        """The request and its author: not in the bundle of a grant that answers none."""
        if self._grant.request is None:
            return set()
        author = decode_entry(self._entries[self._grant.request.index]).author
        return {self._grant.request.index} | ({author.index} if author is not None else set())

    def _asked_blobs(self, document: GrantDocument) -> set[bytes]:
        return {self._consent.request} if document.request is None and self._consent.request is not None else set()
