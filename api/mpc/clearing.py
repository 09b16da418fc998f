"""Clearing a suspended pair: here, and on the ledger for everybody to see who agreed to go on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from api.client.session import Session
from api.entries import Clearance, Party, Reference
from api.mpc.mirror import Mirror
from api.mpc.suspensions import SuspensionStore
from api.registry import Logged
from privacy.errors import UsageError, VerificationFailed

__all__ = ["Standing", "clear", "standing"]


_KEY: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Standing:
    """How things stand with one other party: reasons kept here, and suspensions on the ledger that are open."""

    peer: str
    local: tuple[str, ...]
    open: tuple[tuple[Reference, str], ...]


def standing(session: Session) -> list[Standing]:
    """Every other party with a suspension, here or on the ledger. Raises as `Mirror.follow` does."""
    mirror = Mirror(session)
    mirror.follow(session.server.checkpoint())
    own = _own(session)
    store = SuspensionStore(session.folder / "suspensions")
    local: dict[str, list[str]] = {}
    for found in store.list():
        local.setdefault(found.peer, []).append(f"{found.since}: {found.reason}")
    on_ledger: dict[str, list[tuple[Reference, str]]] = {}
    other = "owner" if session.identity.role == "clinic" else "clinic"
    for party in mirror.registry.all(Party):
        if party.body.role == other:
            pair = (own, party.reference.index) if other == "owner" else (party.reference.index, own)
            for suspension in mirror.registry.suspension_of(*pair):
                on_ledger.setdefault(party.body.name, []).append((suspension.reference, suspension.body.reason))
    return [
        Standing(peer, tuple(local.get(peer, ())), tuple(on_ledger.get(peer, ())))
        for peer in sorted({*local, *on_ledger})
    ]


def clear(session: Session, peer: str) -> tuple[int, tuple[Reference, ...]]:
    """Clear what stands between the party of `session` and `peer`: how much here, and which entries on the ledger.

    `peer` is a name, or a key in hex (which finds damaged records, too).

    The other owner must do the same. A party that cleared an entry before is not asked again.

    Raises:
        UsageError: no such party, or nothing to clear.
        VerificationFailed, ServerError, DecodeError.
    """
    mirror = Mirror(session)
    mirror.follow(session.server.checkpoint())
    found = mirror.registry.party_named(peer)
    if found is None and _KEY.fullmatch(peer):
        found = mirror.registry.party_with_key(bytes.fromhex(peer))
    if found is None:
        raise UsageError(f"the ledger has no party {peer!r}")
    cleared = _clear_ledger(session, mirror, found)
    here = 0
    store = SuspensionStore(session.folder / "suspensions")
    if any(suspended.peer_key == found.body.public_key for suspended in store.list()):
        here = len(store.clear(found.body.public_key))
    if not here and not cleared:
        raise UsageError(f"there is nothing for this party to clear with {peer!r}")
    return here, cleared


def _clear_ledger(session: Session, mirror: Mirror, peer: Logged[Party]) -> tuple[Reference, ...]:
    own, other = _own(session), peer.reference.index
    pair = (own, other) if session.identity.role == "clinic" else (other, own)
    cleared = []
    for suspension in mirror.registry.suspension_of(*pair):
        entry = session.identity.sign(Clearance(suspension.reference))
        try:
            mirror.registry.check(entry)
        except VerificationFailed:
            continue  # this party has cleared it before
        session.check_logged(session.server.append(entry), entry)
        cleared.append(suspension.reference)
    return tuple(cleared)


def _own(session: Session) -> int:
    if session.identity.party is None:
        raise UsageError("this folder's party is not registered yet")
    return session.identity.party.index
