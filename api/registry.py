"""An index over a ledger's entries: who is who, and what refers to what (docs/spec/protocol.md, section 2).

`Registry` reads every entry once and refuses any that breaks a rule which entries alone can show: signatures, roles,
references by index **and** leaf hash, names and numbers used once, the order key < records, model < prediction,
nothing used after its revocation, requests answered by whom they are addressed to, nothing shown under somebody else's
or a revoked grant, and no joint prediction between two parties whose last session failed. The server checks with it
before it logs; an auditor who reads a whole ledger gets the same answers from the same code. Certificates and blobs are
not looked at here (`api.binding`, `api.joint_binding`, `api.submission`), nor are times: what the server demands of a
new entry besides, and older ledgers need not have, is in `api.consent_rules`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from api.approval_entries import verify_approval
from api.binding import Located, check_coverage, check_order, parameters_of
from api.consent_index import ConsentIndex, Standing
from api.entries import (
    WRITERS,
    AnyEntry,
    Approval,
    Body,
    BodyT,
    Clearance,
    CommittedRecords,
    Disclosure,
    Grant,
    JointPrediction,
    Key,
    Model,
    Network,
    Party,
    Policy,
    Prediction,
    Records,
    Reference,
    Refusal,
    Request,
    Revocation,
    Suspension,
    decode_entry,
    verify_signature,
)
from api.joint_binding import check_batches, check_joint_coverage, check_joint_fit, check_joint_order, mpc_parameters_of
from ledger import Log
from ledger.merkle import leaf_hash
from privacy.ckks.keys import check_clinic_id
from privacy.ckks.packing import Packing, capacity
from privacy.errors import UsageError, VerificationFailed

__all__ = ["Logged", "Registry"]

AnyBody = TypeVar(
    "AnyBody",
    Party,
    Key,
    Model,
    Records,
    Prediction,
    Revocation,
    Network,
    CommittedRecords,
    JointPrediction,
    Disclosure,
    Suspension,
    Clearance,
    Approval,
    Request,
    Grant,
    Refusal,
)

ModelT = TypeVar("ModelT", Model, Network)


@dataclass(frozen=True)
class Logged(Located[BodyT]):
    """A checked entry of the ledger: where it stands, what it says, and who wrote it (None for a party)."""

    author: Reference | None


class Registry:
    """The index. Entries are added in ledger order; methods may be called from many threads.

    `origin` is the name of the log, which hospitals' approvals name: without it a log with approvals is not readable.
    Lookups raise VerificationFailed (`ledger.reference`) for what is not there or is something else.
    """

    def __init__(self, origin: str | None = None) -> None:
        self._origin = origin
        self._lock = threading.RLock()
        self._entries: list[Logged[Body]] = []
        self._by_leaf: dict[bytes, int] = {}
        self._names: dict[str, int] = {}
        self._public_keys: dict[bytes, int] = {}
        self._key_numbers: dict[tuple[str, int], int] = {}
        self._model_names: dict[tuple[int, str, str], int] = {}
        self._revoked: dict[int, int] = {}
        self._sessions: dict[bytes, int] = {}
        self._approvals: dict[int, list[int]] = {}
        """By model: the entries that approve it, in ledger order."""
        self._suspensions: dict[tuple[int, int], list[int]] = {}
        self._cleared: dict[int, dict[int, int]] = {}
        """By suspension: which party has cleared it, and in which entry."""
        self._consents = ConsentIndex(self._lock)

    @classmethod
    def read(cls, log: Log) -> Registry:
        """The index of a whole log. Raises as `add` does; the log is then not one that this protocol accepts."""
        registry = cls(log.origin)
        registry.refresh(log)
        return registry

    def refresh(self, log: Log) -> None:
        """Add the entries that the log has and the index has not."""
        with self._lock:
            for entry in log.entries(self.size):
                self.add(entry)

    # -- looking up ----------------------------------------------------------------------------------------------------

    @property
    def origin(self) -> str | None:
        """The name of the log, if it was told."""
        return self._origin

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def index_of(self, entry: bytes) -> int | None:
        """Where an entry with exactly these bytes stands, or None."""
        return self._by_leaf.get(leaf_hash(entry))

    def get(self, index: int, kind: type[AnyBody]) -> Logged[AnyBody]:
        """Entry `index`, which must be of this kind."""
        found = self._at(index)
        if not isinstance(found.body, kind):
            raise VerificationFailed("ledger.reference", f"entry {index} is a {found.body.KIND}, not a {kind.KIND}")
        return Logged(found.reference, found.body, found.author)

    def reference(self, index: int) -> Reference:
        """The reference to entry `index`, whatever it is."""
        return self._at(index).reference

    def _at(self, index: int) -> Logged[Body]:
        with self._lock:
            if not 0 <= index < len(self._entries):
                raise VerificationFailed("ledger.reference", f"there is no entry {index}")
            return self._entries[index]

    def resolve(self, reference: Reference, kind: type[AnyBody]) -> Logged[AnyBody]:
        """The entry that a reference means: index and leaf hash must both fit."""
        found = self.get(reference.index, kind)
        if found.reference.leaf != reference.leaf:
            raise VerificationFailed("ledger.reference", f"entry {reference.index} has another leaf hash")
        return found

    def all(self, kind: type[AnyBody]) -> list[Logged[AnyBody]]:
        """Every entry of a kind, in ledger order."""
        with self._lock:
            entries = list(self._entries)
        return [Logged(e.reference, e.body, e.author) for e in entries if isinstance(e.body, kind)]

    def party_named(self, name: str) -> Logged[Party] | None:
        """The party of this name, or None."""
        index = self._names.get(name)
        return None if index is None else self.get(index, Party)

    def party_with_key(self, public_key: bytes) -> Logged[Party] | None:
        """The party with this Ed25519 key, or None."""
        index = self._public_keys.get(public_key)
        return None if index is None else self.get(index, Party)

    def author_of(self, index: int) -> Logged[Party]:
        """The party that wrote entry `index`; a party wrote its own."""
        entry = self._at(index)
        return self.get((entry.author or entry.reference).index, Party)

    def revocation(self, reference: Reference, size: int | None = None) -> int | None:
        """The index of the revocation of this entry within the first `size` entries (default: all), or None."""
        index = self._revoked.get(reference.index)
        return None if index is None or (size is not None and index >= size) else index

    def standing(self, request: Reference, size: int | None = None) -> Standing:
        """What came of a consumer's request within the first `size` entries (default: all): a withdrawal counts before
        what the clinic has answered."""
        if self.revocation(request, size) is not None:
            return "withdrawn"
        return self.consents.answer(request.index, size)

    def check_not_revoked(self, reference: Reference, size: int | None = None) -> None:
        """Raise VerificationFailed(`ledger.revoked`) if the entry was revoked within the first `size` entries."""
        index = self.revocation(reference, size)
        if index is not None:
            raise VerificationFailed("ledger.revoked", f"entry {reference.index} was revoked by entry {index}")

    def approvals_of(self, model: Reference, size: int | None = None) -> list[Logged[Approval]]:
        """The approvals of this model within the first `size` entries (default: all), in ledger order.

        Their signatures hold; whose they are is for whoever has a governance file (`api.governance`).
        """
        with self._lock:
            size = len(self._entries) if size is None else size
            found = [self.get(i, Approval) for i in self._approvals.get(model.index, []) if i < size]
        return [entry for entry in found if entry.body.model == model]

    @property
    def consents(self) -> ConsentIndex:
        """Requests, and what came of them."""
        return self._consents

    def suspension_of(self, clinic: int, owner: int, size: int | None = None) -> list[Logged[Suspension]]:
        """The suspensions between two parties (by index) that not both have cleared, in ledger order.

        With `size`, as it stood under the first `size` entries. None open: the two may compute together.
        """
        with self._lock:
            size = len(self._entries) if size is None else size
            indices = [
                index
                for index in self._suspensions.get((clinic, owner), [])
                if index < size and not all(self._cleared[index].get(party, size) < size for party in (clinic, owner))
            ]
        return [self.get(index, Suspension) for index in indices]

    def check_not_suspended(self, clinic: int, owner: int, size: int | None = None) -> None:
        """Raise VerificationFailed(`mpc.suspended`) if `suspension_of` has any."""
        found = self.suspension_of(clinic, owner, size)
        if found:
            raise VerificationFailed(
                "mpc.suspended",
                f"parties {clinic} and {owner} are suspended by entry {found[0].reference.index} until both clear it",
            )

    # -- adding --------------------------------------------------------------------------------------------------------

    def check(self, data: bytes) -> AnyEntry:
        """The entry with these bytes, if it may be the next of this ledger.

        Raises:
            DecodeError: the bytes are not those of an entry.
            VerificationFailed: the rule that it breaks.
        """
        entry = decode_entry(data)
        with self._lock:
            if leaf_hash(data) in self._by_leaf:
                raise VerificationFailed("ledger.duplicate", f"this is entry {self._by_leaf[leaf_hash(data)]} already")
            if entry.author is None:
                self._check_party(entry)
            else:
                self._check_authored(entry, self.resolve(entry.author, Party))
        return entry

    def add(self, data: bytes) -> Reference:
        """Check the next entry of the ledger and index it. Raises as `check` does, with nothing changed."""
        with self._lock:
            entry = self.check(data)
            index = len(self._entries)
            reference = Reference(index, leaf_hash(data))
            self._entries.append(Logged(reference, entry.body, entry.author))
            self._by_leaf[reference.leaf] = index
            match entry.body:
                case Party() as party:
                    self._names[party.name] = index
                    self._public_keys[party.public_key] = index
                case Key() as key:
                    self._key_numbers[key.clinic, key.number] = index
                case Model() | Network() as model if entry.author is not None:
                    self._model_names[entry.author.index, model.name, model.version] = index
                case Revocation() as revocation:
                    self._revoked[revocation.target.index] = index
                    self._consents.add(index, self._at(revocation.target.index).author or reference, revocation)
                case JointPrediction() as prediction:
                    self._sessions[prediction.session] = index
                case Suspension() as suspension:
                    pair = (suspension.clinic.index, suspension.owner.index)
                    self._suspensions.setdefault(pair, []).append(index)
                    self._cleared[index] = {}
                case Approval() as approval:
                    self._approvals.setdefault(approval.model.index, []).append(index)
                case Clearance() as clearance if entry.author is not None:
                    self._cleared[clearance.suspension.index][entry.author.index] = index
                case Request() | Grant() | Refusal() | Disclosure() as body if entry.author is not None:
                    self._consents.add(index, entry.author, body)
            return reference

    def extend(self, entries: Iterable[bytes]) -> None:
        """Add entries in order; see `add`."""
        for entry in entries:
            self.add(entry)

    def _check_party(self, entry: AnyEntry) -> None:
        party = entry.body
        if not isinstance(party, Party):
            raise VerificationFailed("entry.author", "only a party entry has no author")
        verify_signature(entry, party.public_key)
        if party.name in self._names:
            raise VerificationFailed("party.name", f"{party.name!r} is entry {self._names[party.name]} already")
        if party.public_key in self._public_keys:
            index = self._public_keys[party.public_key]
            raise VerificationFailed("party.key", f"this key is that of entry {index} already")
        if party.role == "clinic":
            try:
                check_clinic_id(party.name)  # its keys' p1 is derived from it
            except UsageError as error:
                raise VerificationFailed("party.name", str(error)) from error

    def _check_authored(self, entry: AnyEntry, author: Logged[Party]) -> None:
        verify_signature(entry, author.body.public_key)
        body = entry.body
        roles = WRITERS.get(type(body))
        if roles is not None and author.body.role not in roles:
            who = " or ".join(roles)
            raise VerificationFailed("entry.role", f"a {body.KIND} is written by a {who}, not by a {author.body.role}")
        match body:
            case Key():
                self._check_key(body, author)
            case Model():
                self._check_model(body, author)
            case Records():
                self._check_records(body, author)
            case Prediction():
                self._check_prediction(body)
            case Revocation():
                self._check_revocation(body, author)
            case Network():
                self._check_network(body, author)
            case CommittedRecords():
                self._check_committed_records(body, author)
            case JointPrediction():
                self._check_joint_prediction(body)
            case Disclosure():
                self._check_disclosure(body, author)
            case Suspension():
                self._check_suspension(body, author)
            case Clearance():
                self._check_clearance(body, author)
            case Approval():
                self._check_approval(body)
            case Request():
                self._check_request(body, author)
            case Grant():
                self._check_grant(body, author)
            case Refusal():
                self._check_answer(body.request, author)
                self._consents.check_refusal(body)

    def _meant(self, reference: Reference) -> Logged[Body]:
        """The entry that a reference means, of whatever kind."""
        index = reference.index
        if not 0 <= index < self.size or self._entries[index].reference.leaf != reference.leaf:
            raise VerificationFailed("ledger.reference", f"entry {index} is not there or has another leaf hash")
        return self._entries[index]

    def _check_key(self, key: Key, author: Logged[Party]) -> None:
        if key.clinic != author.body.name:
            raise VerificationFailed("key.clinic", f"{author.body.name!r} registers a key of {key.clinic!r}")
        index = self._key_numbers.get((key.clinic, key.number))
        if index is not None:
            raise VerificationFailed("key.number", f"{key.clinic!r} used number {key.number} in entry {index} already")
        parameters_of(key.parameter_set)

    def _check_model(self, model: Model, author: Logged[Party]) -> None:
        self._check_model_name(model, author)
        parameters_of(model.parameter_set)

    def _check_network(self, network: Network, author: Logged[Party]) -> None:
        self._check_model_name(network, author)
        mpc_parameters_of(network.parameter_set)

    def _check_model_name(self, model: Model | Network, author: Logged[Party]) -> None:
        """Models and networks of an owner share their names: a reader is told a name and a version, not a kind."""
        index = self._model_names.get((author.reference.index, model.name, model.version))
        if index is not None:
            raise VerificationFailed("model.name", f"{model.name!r} version {model.version!r} is entry {index} already")

    def _check_records(self, records: Records, author: Logged[Party]) -> None:
        if records.clinic != author.body.name:
            raise VerificationFailed("records.clinic", f"{author.body.name!r} commits records of {records.clinic!r}")
        key = self.resolve(records.key, Key)
        if key.author != author.reference:
            raise VerificationFailed("records.key", f"entry {key.reference.index} is not a key of {records.clinic!r}")
        self.check_not_revoked(key.reference)
        if key.body.parameter_set != records.parameter_set:
            raise VerificationFailed("entry.parameter-set", "key and records name different parameter sets")
        try:
            size = capacity(parameters_of(records.parameter_set), Packing(records.packing), records.d)
        except UsageError as error:
            raise VerificationFailed("records.shape", str(error)) from error
        if records.blocks != -(-records.count // size):
            raise VerificationFailed("records.blocks", f"{records.count} patients fill {-(-records.count // size)}")
        self._check_policy(records.policy, Model)

    def _check_committed_records(self, records: CommittedRecords, author: Logged[Party]) -> None:
        if records.clinic != author.body.name:
            raise VerificationFailed("records.clinic", f"{author.body.name!r} commits records of {records.clinic!r}")
        mpc_parameters_of(records.parameter_set)
        check_batches(records)
        self._check_policy(records.policy, Network)

    def _check_policy(self, policy: Policy, kind: type[ModelT]) -> None:
        if policy.models != "any":
            for reference in policy.models:
                self.resolve(reference, kind)

    def _check_prediction(self, prediction: Prediction) -> None:
        records = self.resolve(prediction.records, Records)
        model = self.resolve(prediction.model, Model)
        key = self.resolve(prediction.key, Key)
        if records.body.key != key.reference:
            raise VerificationFailed("records.key", "the prediction names another key than its records")
        if records.body.schema != model.body.schema:
            raise VerificationFailed("records.schema", "records and model have different schemas")
        if not key.body.parameter_set == records.body.parameter_set == model.body.parameter_set:
            raise VerificationFailed("entry.parameter-set", "key, model and records name different parameter sets")
        check_order(key.reference, model.reference, records.reference, Reference(self.size, bytes(32)))
        self._check_use(
            prediction.checkpoint_size, records.body.policy, model.reference, records.reference, key.reference
        )
        check_coverage(prediction, records.body, len(model.body.outputs))

    def _check_joint_prediction(self, prediction: JointPrediction) -> None:
        records = self.resolve(prediction.records, CommittedRecords)
        model = self.resolve(prediction.model, Network)
        check_joint_fit(model.body, records.body)
        check_joint_order(model.reference, records.reference, Reference(self.size, bytes(32)))
        self._check_use(prediction.checkpoint_size, records.body.policy, model.reference, records.reference)
        check_joint_coverage(prediction, records.body, model.body)
        if prediction.session in self._sessions:
            index = self._sessions[prediction.session]
            raise VerificationFailed("prediction.session", f"this session gave the prediction in entry {index} already")
        clinic, owner = (self.author_of(entry.reference.index).reference.index for entry in (records, model))
        # Under the head that the prediction names, since no session may run then, and now.
        self.check_not_suspended(clinic, owner, prediction.checkpoint_size)
        self.check_not_suspended(clinic, owner)

    def _check_use(self, size: int, policy: Policy, model: Reference, records: Reference, *more: Reference) -> None:
        """Under the head of `size` entries: all was there and not revoked, and the records are for this model."""
        if not max(model.index, records.index) < size <= self.size:
            raise VerificationFailed("prediction.head", "its ledger head is older than what it is about, or unborn")
        for reference in (*more, model, records):
            self.check_not_revoked(reference, size)
        if policy.models != "any" and model not in policy.models:
            raise VerificationFailed("policy.models", "the records are not for this model")

    def _check_request(self, request: Request, author: Logged[Party]) -> None:
        if self.resolve(request.clinic, Party).body.role != "clinic":
            raise VerificationFailed("request.clinic", f"party {request.clinic.index} is no clinic")
        self._consents.check_request(request, author.reference)

    def _check_grant(self, grant: Grant, author: Logged[Party]) -> None:
        if grant.request is not None:
            self._check_answer(grant.request, author)
        self._consents.check_grant(grant, author.reference)

    def _check_answer(self, reference: Reference, author: Logged[Party]) -> None:
        request = self.resolve(reference, Request)
        if request.body.clinic != author.reference:
            raise VerificationFailed("request.addressee", f"entry {reference.index} asks another clinic")
        self.check_not_revoked(request.reference)  # its consumer has withdrawn it

    def _check_disclosure(self, disclosure: Disclosure, author: Logged[Party]) -> None:
        prediction = self._answers(disclosure.prediction)
        if self.author_of(prediction.records.index).reference != author.reference:
            raise VerificationFailed("disclosure.author", "answers are disclosed by the clinic of the records")
        if disclosure.grant is None:
            return  # as clinics did before grants; that everybody can see it is the point
        grant = self.resolve(disclosure.grant, Grant)
        if grant.author != author.reference:
            raise VerificationFailed("grant.author", f"the grant in entry {grant.reference.index} is another clinic's")
        self.check_not_revoked(grant.reference)
        if grant.body.request is not None:
            self.check_not_revoked(grant.body.request)

    def _answers(self, reference: Reference) -> Prediction | JointPrediction:
        """The prediction that a reference means, of either kind."""
        body = self._meant(reference).body
        if not isinstance(body, Prediction | JointPrediction):
            raise VerificationFailed("ledger.reference", f"entry {reference.index} is a {body.KIND}, not a prediction")
        return body

    def _check_suspension(self, suspension: Suspension, author: Logged[Party]) -> None:
        for reference, role in ((suspension.clinic, "clinic"), (suspension.owner, "owner")):
            party = self.resolve(reference, Party)
            if party.body.role != role:
                raise VerificationFailed("suspension.parties", f"party {reference.index} is no {role}")
        if author.reference not in (suspension.clinic, suspension.owner):
            raise VerificationFailed("suspension.author", "a suspension is written by one of its two parties")

    def _check_clearance(self, clearance: Clearance, author: Logged[Party]) -> None:
        suspension = self.resolve(clearance.suspension, Suspension)
        if author.reference not in (suspension.body.clinic, suspension.body.owner):
            raise VerificationFailed("clearance.author", "a suspension is cleared by its two parties")
        index = self._cleared[suspension.reference.index].get(author.reference.index)
        if index is not None:
            raise VerificationFailed("clearance.again", f"{author.body.name!r} has cleared it in entry {index} already")

    def _check_approval(self, approval: Approval) -> None:
        if self._origin is None:
            raise UsageError(
                "this index does not know its log's origin, which approvals name: make it with Registry(origin)"
            )
        target = self._meant(approval.model).body
        if not isinstance(target, Model | Network):
            raise VerificationFailed("approval.model", f"a {target.KIND} is not approved, only models and networks are")
        self.check_not_revoked(approval.model)
        verify_approval(approval, self._origin)

    def _check_revocation(self, revocation: Revocation, author: Logged[Party]) -> None:
        target = self._meant(revocation.target)
        if not isinstance(target.body, Key | Model | Records | Network | CommittedRecords | Request | Grant):
            raise VerificationFailed("revocation.target", f"a {target.body.KIND} cannot be revoked")
        if target.author != author.reference:
            raise VerificationFailed("revocation.author", "only the author of an entry revokes it")
        self.check_not_revoked(revocation.target)
