"""From an offer of the server to the terms of a session: nothing of it is believed that the log does not show.

A node reads the log itself (`Mirror`), so that entries, authors, revocations, suspensions and exposure are those under
a head that the log's key signed, and certificates are verified here, once each.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from api.client.http_answers import Offer
from api.client.session import Session
from api.client.verified_cache import VerifiedCache
from api.entries import CommittedRecords, Network, Party, Reference
from api.exposure import joint_bits, network_bits, recount
from api.joint_binding import batch_of, check_batches, check_joint_fit, verify_network_entry, verify_records_batch
from api.mpc.delivered import DeliveredStore
from api.mpc.mirror import Mirror
from api.mpc.session import Terms
from api.registry import Logged
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, VerificationFailed
from privacy.models.schema import Schema
from privacy.mpc.dealer import Role
from privacy.zk.group import POINT_BYTES

__all__ = ["Examiner"]

_DIGEST_BYTES: Final = 32


class Examiner:
    """Checks offers for the party of `session` in its role. `exposure_cap`, which needs `delivered`: see `Node`."""

    def __init__(
        self,
        session: Session,
        role: Role,
        dealer_key: bytes,
        exposure_cap: Fraction | None,
        delivered: DeliveredStore | None,
    ) -> None:
        self._session = session
        self._role = role
        self._dealer_key = dealer_key
        self._exposure_cap = exposure_cap
        self._delivered = delivered
        self._mirror = Mirror(session)
        self._cache = VerifiedCache()

    def terms(self, offer: Offer) -> Terms:
        """The terms of the session that `offer` is about.

        Raises:
            VerificationFailed: `offer.party`, `offer.order`, `policy.models`, `policy.until`, `ledger.revoked`,
                `mpc.suspended`, `exposure.cap`, or what the entries and certificates fail at.
            UsageError, DecodeError, ServerError, ledger.LedgerError.
        """
        self._mirror.follow(self._session.server.checkpoint())
        head = self._mirror.follow(offer.checkpoint)
        registry = self._mirror.registry
        model, records = registry.get(offer.model, Network), registry.get(offer.records, CommittedRecords)
        owner, clinic = registry.author_of(offer.model), registry.author_of(offer.records)
        self._check_parties(offer, owner, clinic)
        newest = max(model.reference.index, records.reference.index)
        if not newest < head.size:
            raise VerificationFailed("offer.order", f"the head of {head.size} entries is older than entry {newest}")
        check_joint_fit(model.body, records.body)
        check_batches(records.body)
        self._check_policy(model, records)
        for size in (head.size, None):  # under the head that the prediction will name, and now
            registry.check_not_suspended(clinic.reference.index, owner.reference.index, size)
        self._check_cap(model, records)
        schema = Schema.decode_json(self._session.server.blob(model.body.schema))
        commitments = self._commitments(records)
        self._check_certificates(model, records, schema, commitments)
        return Terms(
            job=offer.job,
            nonce=offer.nonce,
            model=model,
            records=records,
            clinic=clinic,
            owner=owner,
            schema=schema,
            commitments=commitments,
            head=(head.size, head.root),
            dealer_key=self._dealer_key,
        )

    def _check_parties(self, offer: Offer, owner: Logged[Party], clinic: Logged[Party]) -> None:
        said = (offer.owner, offer.clinic)
        if said != (owner.reference.index, clinic.reference.index):
            raise VerificationFailed("offer.party", f"parties {said} are not the authors of model and records")
        own: Reference | None = self._session.identity.party
        if own != (clinic if self._role == "A" else owner).reference:
            what = "records" if self._role == "A" else "model"
            raise VerificationFailed("offer.party", f"the {what} of the offer are not this party's")

    def _check_policy(self, model: Logged[Network], records: Logged[CommittedRecords]) -> None:
        policy = records.body.policy
        if policy.models != "any" and model.reference not in policy.models:
            raise VerificationFailed("policy.models", "the records were not committed for this model")
        if policy.until is not None and parse_timestamp(policy.until) < datetime.now(UTC):
            raise VerificationFailed("policy.until", f"the records were committed for use until {policy.until}")
        for reference in (model.reference, records.reference):
            self._mirror.registry.check_not_revoked(reference)

    def _check_cap(self, model: Logged[Network], records: Logged[CommittedRecords]) -> None:
        if self._exposure_cap is None or self._delivered is None:
            return
        registry = self._mirror.registry
        released = {
            row.output: row.exposure.released for row in recount(registry, records.body.clinic, model.reference.index)
        }
        clinic = registry.author_of(records.reference.index).reference.leaf
        patients = records.body.count + self._delivered.unpublished(registry, clinic, model.reference.leaf)
        cap = self._exposure_cap * network_bits(model.body)
        for output, bits in joint_bits(model.body, patients).items():
            after = released.get(output, Fraction(0)) + bits
            if after > cap:
                raise VerificationFailed(
                    "exposure.cap",
                    f"{float(after):.0f} bits of output {output} would have been told to {records.body.clinic!r}, this "
                    f"node allows {float(cap):.0f}",
                )

    def _commitments(self, records: Logged[CommittedRecords]) -> tuple[bytes, ...]:
        blob = self._session.server.blob(records.body.commitments)
        if len(blob) != POINT_BYTES * records.body.count:
            raise DecodeError("list of commitments", f"{len(blob)} bytes for {records.body.count} patients")
        return tuple(blob[i : i + POINT_BYTES] for i in range(0, len(blob), POINT_BYTES))

    def _check_certificates(
        self,
        model: Logged[Network],
        records: Logged[CommittedRecords],
        schema: Schema,
        commitments: tuple[bytes, ...],
    ) -> None:
        """A verifies the network's certificate, B those of the records: each its own side it made itself."""
        server, encoded = self._session.server, schema.encode_json()
        if self._role == "A":
            certificate = server.blob(model.body.certificate)
            self._once(
                "network",
                [model.reference.leaf, encoded, certificate],
                lambda: verify_network_entry(model.body, encoded, certificate),
            )
            return
        for number, digest in enumerate(records.body.certificates):
            batch, certificate = batch_of(records.body, number), server.blob(digest)
            part = commitments[batch.start : batch.stop]
            self._once(
                "records",
                [records.reference.leaf, encoded, number.to_bytes(8, "little"), *part, certificate],
                lambda batch=batch, part=part, certificate=certificate: verify_records_batch(  # type: ignore[misc]
                    records.body, schema, batch, part, certificate
                ),
            )

    def _once(self, kind: str, parts: list[bytes], verify: Callable[[], object]) -> None:
        mark = self._cache.mark(f"node/{kind}", parts)
        if not self._cache.knows(mark):
            verify()
            self._cache.remember(mark)
