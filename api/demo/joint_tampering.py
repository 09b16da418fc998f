"""What dishonest parties of two-party computation could try, really carried out on copies of an honest bundle.

Owner, clinic, server and ledger work together here as far as each attack says, with all their signing keys; a proof
that they made before is at hand, and weights can be committed and certified anew. What the forger makes is given to
the same auditor as the honest bundle. Used by `sealproof demo` and by the tests of it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import joint_binding as binding
from api.demo.forging import BundleForger, Forgery
from api.entries import (
    AnyEntry,
    CommittedRecords,
    JointPrediction,
    Network,
    Party,
    Policy,
    Reference,
    decode_entry,
    decode_point_list,
    encode_point_list,
    sign_entry,
)
from ledger import Log, Signer
from privacy import attestation
from privacy.models.certificate import weights_key
from privacy.models.network_certificate import RowOpening, certify_network
from privacy.models.network_quantise import CommittedLayer
from privacy.models.schema import Schema
from privacy.mpc.joint_proof import answer_key, answers_digest
from privacy.mpc.joint_prover import Row
from privacy.zk.group import ARKWORKS, POINT_BYTES

__all__ = ["JointForger", "JointKeys"]

_PROOF_TAG: Final = b"sealproof/joint-proof/v1\n"
_WIDE_BITS: Final = 60


@dataclass(frozen=True)
class JointKeys:
    """The signing keys of everybody who could work together against the reader."""

    log: Signer
    server: Ed25519PrivateKey
    owner: Ed25519PrivateKey
    clinic: Ed25519PrivateKey


class JointForger(BundleForger):
    """Makes forged versions of one honest bundle of one proof in `folder`. `rows`: the openings of the network."""

    def __init__(
        self, honest: Path, entries: Iterable[bytes], folder: Path, keys: JointKeys, rows: Sequence[Sequence[Row]]
    ) -> None:
        super().__init__(honest, entries, folder, keys.log)
        self._keys = keys
        self._rows = [list(layer) for layer in rows]
        entry = decode_entry(self._entries[self._index])
        model = self._entry(entry.body.model if isinstance(entry.body, JointPrediction) else None)
        records = self._entry(entry.body.records if isinstance(entry.body, JointPrediction) else None)
        if (
            not isinstance(entry.body, JointPrediction)
            or not isinstance(model.body, Network)
            or not isinstance(records.body, CommittedRecords)
        ):
            raise TypeError("the bundle has no joint prediction")
        self._prediction, self._model, self._records = entry.body, model.body, records.body
        self._server, self._owner, self._clinic = entry.author, model.author, records.author
        (self._proof,) = self._prediction.proofs

    def all(self) -> list[Forgery]:
        """Every forgery, in the order in which the demonstration tells them."""
        server, owner, clinic = "dishonest server", "model owner and server", "clinic and server"
        everybody = "owner, clinic and server together"
        told: list[tuple[str, str, Callable[[], Path]]] = [
            (server, "one patient's answer raised by one unit inside the finished proof", self.raised_answer),
            (server, "every answer halved, by stating another scale", self.other_scale),
            (server, "the proof of this session presented as that of another", self.other_session),
            (server, "an attestation that leaves the last patient out", self.fewer_patients),
            (owner, "the records used with a model that the clinic had not allowed", self.forbidden_model),
            (everybody, "one secret weight changed, committed to and certified anew", self.other_weight),
            (everybody, "a model with numbers so large that they could wrap around", self.wrapping_network),
            (clinic, "two patients exchanged in the list of committed records", self.exchanged_patients),
            ("another clinic", "the same records and their proof presented as its own", self.stolen_records),
            ("clinic and model owner", "a prediction that no server has logged", self.own_prediction),
        ]
        return [Forgery(attacker, what, make()) for attacker, what, make in told]

    # -- a dishonest server -------------------------------------------------------------------------------------------

    def raised_answer(self) -> Path:
        """Add one unit to the first patient's committed answer; every digest fits again."""
        proof = self._blob(self._proof.digest)
        hidden = 2 if len(self._model.layers) > 1 else 0
        step = hidden + 2 * len(self._model.outputs)
        at = len(_PROOF_TAG) + hidden * POINT_BYTES
        (unit,) = answer_key().points
        raised = ARKWORKS.encode(ARKWORKS.add(ARKWORKS.decode(proof[at : at + POINT_BYTES]), unit))
        forged = proof[:at] + raised + proof[at + POINT_BYTES :]
        body = replace(
            self._prediction,
            proofs=(
                replace(
                    self._proof,
                    digest=sha256(forged).digest(),
                    answers=answers_digest(_answers(forged, step, hidden, self._proof.count)),
                ),
            ),
        )
        return self._publish("raised-answer", lambda log: body, blobs=self._replaced((self._proof.digest, forged)))

    def other_scale(self) -> Path:
        """Say that answers are integers at twice the scale."""
        body = replace(self._prediction, answer_scale_bits=self._prediction.answer_scale_bits + 1)
        return self._publish("other-scale", lambda log: body)

    def other_session(self) -> Path:
        """Log the same proof once more, under the present head, as if it had been made in a session of its own."""

        def body(log: Log) -> JointPrediction:
            return replace(self._about(log), session=sha256(self._prediction.session).digest())

        return self._publish("other-session", body)

    def fewer_patients(self) -> Path:
        """An honest entry, and an attestation of it that covers one patient less."""

        def altered(said: attestation.JointPredicate) -> attestation.JointPredicate:
            (proof,) = said.proofs
            covers = replace(proof.covers, patients=proof.covers.patients - 1)
            return replace(said, proofs=(replace(proof, covers=covers),))

        return self._publish("fewer-patients", lambda log: self._prediction, altered=altered)

    # -- owner, clinic, and everybody together ------------------------------------------------------------------------

    def forbidden_model(self) -> Path:
        """The same network under another version: nobody asked the clinic about it."""
        model = replace(self._model, version="2")
        return self._publish("forbidden-model", lambda log: self._about(log, model=self._log_model(log, model)))

    def other_weight(self) -> Path:
        """One weight of one neuron changes, the clinic agrees; the proof is still that of the old weights."""
        first = self._rows[0][0]
        weight = first.weights[0] + (1 if first.weights[0] <= 0 else -1)
        changed = replace(first, weights=(weight, *first.weights[1:]))
        rows = [[changed, *self._rows[0][1:]], *self._rows[1:]]
        schema = Schema.decode_json(self._blob(self._model.schema))
        statement = binding.network_statement(self._model, schema)
        key = weights_key(statement.shapes[0].inputs)
        commitment = ARKWORKS.encode(key.commit(changed.values, changed.rho))
        layer = CommittedLayer(statement.shapes[0], (commitment, *statement.layers[0].commitments[1:]))
        statement = replace(statement, layers=(layer, *statement.layers[1:]))
        openings = tuple(tuple(RowOpening(row.weights, row.bias, row.rho) for row in layer) for layer in rows)
        certificate = certify_network(statement, openings)
        digest = sha256(certificate).digest()
        model = binding.network_entry(statement, digest, self._model.artefact, self._model.card)
        return self._allowed("other-weight", model, self._replaced((self._model.certificate, certificate)))

    def wrapping_network(self) -> Path:
        """Public bounds under which a "network" could compute modulo the group order instead of with integers."""
        first, *rest = self._model.layers
        return self._allowed("wrapping-network", replace(self._model, layers=(replace(first, b=_WIDE_BITS), *rest)))

    def exchanged_patients(self) -> Path:
        """The commitments of the first two patients in each other's place."""
        listed = self._blob(self._records.commitments)
        first, second, *others = decode_point_list(listed, self._records.count)
        changed = encode_point_list((second, first, *others))
        records = replace(self._records, commitments=sha256(changed).digest())
        blobs = self._replaced((self._records.commitments, changed))
        return self._publish(
            "exchanged-patients", lambda log: self._about(log, records=self._log_records(log, records)), blobs=blobs
        )

    def stolen_records(self) -> Path:
        """Another clinic registers, and logs the same commitments and certificate under its own name."""
        key = Ed25519PrivateKey.generate()
        records = replace(self._records, clinic="st-bruno")

        def body(log: Log) -> JointPrediction:
            party = _logged(
                log, sign_entry(Party("clinic", "st-bruno", key.public_key().public_bytes_raw()), None, key)
            )
            return self._about(log, records=_logged(log, sign_entry(records, party, key)))

        return self._publish("stolen-records", body)

    def own_prediction(self) -> Path:
        """The owner logs and attests the prediction itself: no server has counted it."""
        with self._open_log("own-prediction") as log:
            return self._log_and_write("own-prediction", log, self._about(log), self._owner, self._keys.owner)

    # -- tools --------------------------------------------------------------------------------------------------------

    def _entry(self, reference: Reference | None) -> AnyEntry:
        if reference is None:
            raise TypeError("the bundle has no joint prediction")
        return decode_entry(self._entries[reference.index])

    def _about(self, log: Log, *, model: Reference | None = None, records: Reference | None = None) -> JointPrediction:
        """The prediction, as if it had been made about these entries and under the ledger's present head."""
        head = log.head()
        return replace(
            self._prediction,
            model=model or self._prediction.model,
            records=records or self._prediction.records,
            checkpoint_size=head.size,
            checkpoint_root=head.root,
        )

    def _log_model(self, log: Log, model: Network) -> Reference:
        return _logged(log, sign_entry(model, self._owner, self._keys.owner))

    def _log_records(self, log: Log, records: CommittedRecords) -> Reference:
        return _logged(log, sign_entry(records, self._clinic, self._keys.clinic))

    def _allowed(self, name: str, model: Network, blobs: Iterable[bytes] | None = None) -> Path:
        """The prediction of another network entry, with the consent of the clinic."""

        def body(log: Log) -> JointPrediction:
            other = self._log_model(log, model)
            records = replace(self._records, policy=Policy((other,), None))
            return self._about(log, model=other, records=self._log_records(log, records))

        return self._publish(name, body, blobs=blobs)

    def _publish(
        self,
        name: str,
        body: Callable[[Log], JointPrediction],
        *,
        blobs: Iterable[bytes] | None = None,
        altered: Callable[[attestation.JointPredicate], attestation.JointPredicate] = lambda said: said,
    ) -> Path:
        """Log what `body` makes of the ledger as the server, and write its bundle."""
        with self._open_log(name) as log:
            made = body(log)
            return self._log_and_write(name, log, made, self._server, self._keys.server, blobs, altered)

    def _log_and_write(
        self,
        name: str,
        log: Log,
        body: JointPrediction,
        author: Reference | None,
        key: Ed25519PrivateKey,
        blobs: Iterable[bytes] | None = None,
        altered: Callable[[attestation.JointPredicate], attestation.JointPredicate] = lambda said: said,
    ) -> Path:
        index = log.append(sign_entry(body, author, key)).index
        model = decode_entry(log.entry(body.model.index)).body
        if not isinstance(model, Network):
            raise TypeError("the prediction's model is no network")  # unreachable: every forgery names one
        said = binding.joint_predicate(
            log.entry, index, body, model, issued_at=self._issued_at, request_nonce=self._nonce
        )
        envelope = attestation.sign_statement(altered(said), key)
        named = [index, body.model.index, body.records.index]
        authors = [decode_entry(log.entry(number)).author for number in named]
        members = [*named, *(party.index for party in authors if party is not None)]
        return self._write(name, log, body.checkpoint_size, envelope, self._blobs if blobs is None else blobs, members)


def _logged(log: Log, entry: bytes) -> Reference:
    """Append an entry; the reference to it."""
    return Reference.to(log.append(entry).index, entry)


def _answers(proof: bytes, step: int, hidden: int, patients: int) -> list[bytes]:
    """The C_z of a joint proof: it has `step` points for each patient, of which `hidden` come before the answers."""
    first = len(_PROOF_TAG)
    points = [
        ARKWORKS.decode(proof[i : i + POINT_BYTES])
        for i in range(first, first + patients * step * POINT_BYTES, POINT_BYTES)
    ]
    shares = [points[p * step + hidden : (p + 1) * step] for p in range(patients)]
    return [ARKWORKS.encode(ARKWORKS.add(a, b)) for row in shares for a, b in zip(row[::2], row[1::2], strict=True)]
