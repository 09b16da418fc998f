"""A node from a folder: whose it is says what part it takes and which secrets it uses."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from api.client.clinic import Clinic
from api.client.identity import Identity
from api.client.owner import Owner
from api.mpc.link import Address
from api.mpc.node import Node, NodeDealer
from api.mpc.session import Progress, Terms
from privacy.errors import UsageError
from privacy.mpc.records import CommittedRecord

__all__ = ["node_of", "node_of_clinic", "node_of_owner"]


def node_of_clinic(clinic: Clinic, dealer: NodeDealer, *, progress: Progress | None = None) -> Node:
    """The node of an open clinic: part A, with the openings of its records, in predictions that it asked for."""

    def openings(terms: Terms) -> tuple[CommittedRecord, ...]:
        clinic.check_asked(terms.nonce, terms.records.reference, terms.model.reference)
        return clinic.committed_openings(terms.records.reference.index)

    return Node(clinic.session, "A", openings, dealer, progress=progress)


def node_of_owner(
    owner: Owner,
    dealer: NodeDealer,
    listen: Address,
    *,
    advertise: Address | None = None,
    exposure_cap: Fraction | None = None,
    progress: Progress | None = None,
) -> Node:
    """The node of an open owner; it takes part B with the weights in its folder."""
    return Node(
        owner.session,
        "B",
        lambda terms: owner.network_rows(terms.model),
        dealer,
        listen=listen,
        advertise=advertise,
        exposure_cap=exposure_cap,
        progress=progress,
    )


def node_of(
    folder: Path,
    dealer: NodeDealer,
    *,
    listen: Address | None = None,
    advertise: Address | None = None,
    exposure_cap: Fraction | None = None,
    progress: Progress | None = None,
) -> Node:
    """The node of whoever's folder it is. An owner's needs `listen`, by default a free port of this machine.

    Raises UsageError, DecodeError.
    """
    if Identity.load(folder).role == "clinic":
        if listen is not None or advertise is not None or exposure_cap is not None:
            raise UsageError("a clinic's node connects to owners' nodes: it neither listens nor caps exposure")
        return node_of_clinic(Clinic.open(folder), dealer, progress=progress)
    chosen = listen or Address("127.0.0.1", 0)
    return node_of_owner(
        Owner.open(folder),
        dealer,
        chosen,
        advertise=advertise,
        exposure_cap=exposure_cap,
        progress=progress,
    )
