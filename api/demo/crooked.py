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
from api.consent import GrantDocument, Scope
from api.demo.forging import BundleForger, Forgery, moved_behind
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


@dataclass(frozen=True)
class _Told:
    """What a forged disclosure says: answers, proof, the grant that its entry names, and what that grant says."""

    answers: Sequence[ShownAnswer]
    proof: bytes
    grant: Reference | None
    document: GrantDocument


@dataclass(frozen=True)
class _Place:
    """The prediction that a forged disclosure is about, and what else is in its bundle."""

    prediction: Reference
    body: Prediction
    envelope: bytes
    blobs: Sequence[bytes]
    members: Iterable[int]


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
                "the prediction logged once more, with the proof of the first, and shown from there",
                self.swapped,
            ),
            (both, "a ledger in which the key was registered after the records", self.late_key),
        ]
        return [Forgery(attacker, what, make()) for attacker, what, make in told]

    # -- the clinic alone ---------------------------------------------------------------------------------------------

    def higher_threshold(self) -> Path:
        """Say a higher threshold, with the proof of the lower one."""
        higher = replace(self._answer, value=self._answer.value + 1)
        return self._show("higher-threshold", [higher], lambda grant: self._prove([self._answer], grant), granted=True)

    def just_outside(self) -> Path:
        """Prove the exact score of the low patient, and say an interval that begins where the true one ends."""
        true = self._exact(self._low)
        false = replace(true, value=true.value + 2 * true.tolerance)
        return self._show("just-outside", [false], lambda grant: self._prove([true], grant), granted=True)

    def around_the_modulus(self) -> Path:
        """The answer plus Q: the same decryption mod Q, and a number that no answer is."""
        true, params = self._exact(self._low), self._verified.statements[0].params
        steps = round(params.Q / (1 << (params.D - self._shown.grid_bits)))
        false = replace(true, value=true.value + steps)
        return self._show("around-the-modulus", [false], lambda grant: self._prove([true], grant), granted=True)

    def other_position(self) -> Path:
        """The place of the high patient, whose answer reaches the threshold, under the name of the low one."""
        name = self._named(self._low)
        false = replace(self._answer, record_id=name.record_id, salt=name.salt, path=name.path)
        return self._show("other-position", [false], lambda grant: self._prove([self._answer], grant), granted=True)

    def other_name(self) -> Path:
        """The low patient's own place and name, with the proof about the high one."""
        false = self._named(self._low)
        return self._show("other-name", [false], lambda grant: self._prove([self._answer], grant), granted=True)

    def second_key(self) -> Path:
        """Make keys until the low patient's result decrypts to something above the threshold, and prove that."""
        answer, keys = self._named(self._low), self._crooks.keys
        low, high = self._interval(answer)
        place, result = self._coefficient(answer)
        while True:
            other = ClinicKeys.generate(keys.params, keys.clinic_id, keys.number + 1)
            if low <= other.decrypt_integers_unverified(result)[place] < high:
                break
        certificate, openings = certify_key(
            keys.params, keys.clinic_id, other.number, other.public.p0, other.s, other.e_pk
        )
        found = verify_key_certificate(keys.params, keys.clinic_id, other.number, other.public.p0, certificate)
        C_plus, C_minus = ARKWORKS.encode(found.C_plus), ARKWORKS.encode(found.C_minus)

        def prove(grant: bytes) -> bytes:
            about = replace(self._statement([answer], grant), C_plus=C_plus, C_minus=C_minus)
            return prove_disclosure(about, self._results(), other.s, openings)

        return self._show("second-key", [answer], prove, granted=True)

    def other_purpose(self) -> Path:
        """Log a grant for another purpose, and show under it."""
        document = replace(self._consent, purpose=_OTHER_PURPOSE)
        return self._show("other-purpose", [self._answer], self._truly([self._answer]), document=document)

    def expired(self) -> Path:
        """Log a grant that ended long ago, and show under it."""
        document = replace(self._consent, until=_PAST)
        return self._show("expired", [self._answer], self._truly([self._answer]), document=document)

    def more_than_granted(self) -> Path:
        """Show the exact score, too, which nobody was allowed to see."""
        answers = [self._answer, self._exact(self._answer.patient)]
        return self._show("more-than-granted", answers, self._truly(answers))

    def no_grant(self) -> Path:
        """Log the disclosure without naming a grant."""
        return self._show("no-grant", [self._answer], self._truly([self._answer]), name_grant=False)

    # -- the clinic with the server and its ledger --------------------------------------------------------------------

    def raised(self) -> Path:
        """Add units to the low patient's coefficient in every prime, log that as a prediction, and disclose it."""
        answer = self._named(self._low)
        old, params = answer.result, self._verified.statements[0].params
        place, result = self._coefficient(answer)
        low, _ = self._interval(answer)
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

    def late_key(self) -> Path:
        """Write the ledger anew with the key behind the records: it could have been made to fit them."""
        verified, crooks = self._verified, self._crooks
        key, records = verified.key.reference, verified.records.reference

        def moved(index: int) -> int:
            return moved_behind(index, key.index, records.index)

        late = Reference(moved(key.index), key.leaf)
        said = replace(verified.records.body, key=late)
        signed = sign_entry(said, self._clinic, crooks.clinic_key)
        entries = self._entries[: self._index]
        entries[records.index] = signed
        entries.insert(records.index, entries.pop(key.index))
        model = Reference(moved(verified.model.reference.index), verified.model.reference.leaf)
        body = replace(
            verified.prediction.body, key=late, model=model, records=Reference.to(moved(records.index), signed)
        )
        with self._open_log("late-key", entries) as log:
            index = log.append(
                sign_entry(body, decode_entry(self._entries[self._index]).author, crooks.server_key)
            ).index
            attested = predicate(log.entry, index, body, said, issued_at=self._issued_at, request_nonce=self._nonce)
            located = Reference.to(index, log.entry(index))
            document = replace(self._covering(self._answer), scope=Scope(located, None, None))
            grant, _ = self._log_grant(log, document)
            shown = replace(self._shown, prediction=LedgerReference.to(index, log.entry(index)))
            members = {moved(i) for i in self._members if i < self._index} - self._asked() | {index}
            envelope = attestation.sign_statement(attested, crooks.server_key)
            told = _Told([self._answer], self._prove([self._answer], grant.leaf), grant, document)
            return self._finish(
                "late-key", log, told, grant, shown, _Place(located, body, envelope, self._blobs, members)
            )

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
            place = _Place(located, body, envelope, blobs, members)
            return self._finish(name, log, _Told([answer], proof, grant, document), grant, shown, place)

    # -- tools --------------------------------------------------------------------------------------------------------

    def _results(self) -> Callable[[bytes], ResultCiphertext]:
        params = self._verified.statements[0].params
        return lambda digest: decode_result(params, self._blob(digest))

    def _statement(self, answers: Sequence[ShownAnswer], grant_id: bytes | None = None) -> DisclosureStatement:
        grant_id = self._shown.grant.leaf if grant_id is None else grant_id
        return encrypted_statement(self._verified, grant_id, self._shown.recipient_nonce, answers)

    def _prove(self, answers: Sequence[ShownAnswer], grant_id: bytes) -> bytes:
        crooks = self._crooks
        return prove_disclosure(self._statement(answers, grant_id), self._results(), crooks.keys.s, crooks.openings)

    def _truly(self, answers: Sequence[ShownAnswer]) -> Callable[[bytes], bytes]:
        """The true proof of what is shown, under whichever grant."""
        return lambda grant: self._prove(answers, grant)

    def _interval(self, answer: ShownAnswer) -> tuple[int, int]:
        statement = self._statement([answer])
        return statement.interval(statement.answers[0])

    def _coefficient(self, answer: ShownAnswer) -> tuple[int, ResultCiphertext]:
        """Where among the published coefficients of which result the answer is."""
        (one,) = self._statement([answer]).answers
        result = self._results()(one.results[0])
        return int((result.positions == one.position).nonzero()[0][0]), result

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
        place, result = self._coefficient(named)
        M, step = self._crooks.keys.decrypt_integers_unverified(result)[place], self._statement([named]).step
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
        prove: Callable[[bytes], bytes],
        *,
        document: GrantDocument | None = None,
        granted: bool = False,
        name_grant: bool = True,
    ) -> Path:
        """A disclosure of `answers`, with what `prove` makes for the leaf hash of the grant.

        `document`: under a grant that says this. `granted`: under one that lists exactly what is shown, so that consent
        is not what is missing.
        """
        with self._open_log(name) as log:
            if granted:
                document = self._covering(answers[0])
            grant, said = (self._body.grant, self._consent) if document is None else self._log_grant(log, document)
            if grant is None:
                raise TypeError("no grant")  # unreachable: checked in the beginning
            told = _Told(answers, prove(grant.leaf), grant if name_grant else None, said)
            honest = self._verified.prediction
            place = _Place(honest.reference, honest.body, self._envelope, self._blobs, self._members)
            return self._finish(name, log, told, grant, self._shown, place)

    def _finish(self, name: str, log: Log, told: _Told, grant: Reference, shown: Shown, place: _Place) -> Path:
        """Sign what is shown, log it, and write the bundle of it."""
        signed = sign_shown(
            replace(
                shown,
                grant=LedgerReference.to(grant.index, log.entry(grant.index)),
                answers=tuple(told.answers),
                proof=Shown.proof_reference(told.proof),
            ),
            self._crooks.clinic_key,
        )
        body = Disclosure(place.prediction, sha256(signed).digest(), sha256(told.proof).digest(), told.grant, None)
        index = log.append(sign_entry(body, self._clinic, self._crooks.clinic_key)).index
        # What the honest bundle says of statement, consent and request goes; what this one says comes in its place.
        consented = told.grant is not None
        asked = consented and told.document.request is not None
        gone = {self._body.statement, self._body.proof, self._grant.document}
        gone |= {self._consent.request} if not asked and self._consent.request is not None else set()
        blobs = [blob for blob in place.blobs if sha256(blob).digest() not in gone]
        blobs += [signed, told.proof, *([told.document.encode()] if consented else [])]
        members = set(place.members) - {self._shown_at, self._grant_at} - (set() if asked else self._asked())
        members |= {index, *([grant.index] if consented else [])}
        return self._write(name, log, place.body.checkpoint_size, place.envelope, blobs, members)

    def _asked(self) -> set[int]:
        """The request and its author: not in the bundle of a grant that answers none."""
        if self._grant.request is None:
            return set()
        author = decode_entry(self._entries[self._grant.request.index]).author
        return {self._grant.request.index} | ({author.index} if author is not None else set())
