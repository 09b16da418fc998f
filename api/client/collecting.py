"""The parts of collecting a disclosure: which one, what was left for its recipient, and the file at the end."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

from api.binding import Located
from api.client.asked import GrantState, RequestState
from api.client.delivery import DELIVERY_BOX, Delivery, unpack_delivery
from api.client.session import Session
from api.client.transport import ServerError, ServerRefused
from api.entries import Disclosure, decode_entry
from privacy.bundle import BundleReader
from privacy.dsse import decode_envelope
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.sealed import open_sealed

__all__ = ["chosen", "fetch_delivery", "nonce_in", "publish"]


def chosen(state: RequestState, disclosure: int | None) -> tuple[GrantState, Located[Disclosure]]:
    """One disclosure under a grant of this request. Raises UsageError, with how the request stands."""
    shown = [(grant, one) for grant in state.grants for one in grant.disclosures]
    if disclosure is not None:
        shown = [(grant, one) for grant, one in shown if one.reference.index == disclosure]
        if not shown:
            raise UsageError(f"entry {disclosure} is no disclosure for the request in entry {state.asked.index}")
    if len(shown) > 1:
        listed = ", ".join(str(one.reference.index) for _, one in shown)
        raise UsageError(f"there are several disclosures, say which (disclosure, --disclosure): {listed}")
    if shown:
        return shown[0]
    name = state.clinic.name
    if state.state == "withdrawn":
        raise UsageError(f"the request in entry {state.asked.index} was withdrawn, and nothing was shown before")
    if state.state == "refused":
        raise UsageError(f"{name!r} has refused the request in entry {state.asked.index}: {state.refusal}")
    if state.state == "open":
        raise UsageError(f"{name!r} has not answered the request in entry {state.asked.index} yet")
    ends = ", ".join(f"entry {g.grant.reference.index} until {g.grant.body.until}" for g in state.grants)
    revoked = " (revoked)" if all(grant.revoked for grant in state.grants) else ""
    raise UsageError(f"{name!r} has granted the request ({ends}){revoked}, but has shown nothing yet")


def fetch_delivery(session: Session, state: RequestState, grant: GrantState, shown: Located[Disclosure]) -> Delivery:
    """What the clinic left for this consumer, compared with what the ledger names.

    Raises UsageError where it left nothing, ServerError where the server has lost it, VerificationFailed (`sealed.box`,
    `disclosure.delivery`) and DecodeError for what is not what the ledger names.
    """
    what = f"the delivery of the disclosure in entry {shown.reference.index}"
    otherwise = f"ask {state.clinic.name!r} for the file itself and check it with sealproof consumer verify"
    mailbox = session.identity.mailbox
    if shown.body.delivery is None or mailbox is None:
        raise UsageError(f"there is no delivery on the server: {otherwise}")
    try:
        box = session.server.blob(shown.body.delivery)
    except ServerRefused as error:
        if error.status != 404:
            raise
        raise ServerError(f"the server does not have {what}: {otherwise}") from error
    try:
        data = open_sealed(box, mailbox, purpose=DELIVERY_BOX, context=grant.grant.reference.leaf)
    except VerificationFailed as error:
        raise VerificationFailed(
            error.check, f"{what} was not sealed for this consumer under this grant: {otherwise}"
        ) from error
    delivery = unpack_delivery(data)
    named = (shown.body.statement, shown.body.proof, grant.grant.body.document)
    parts = (delivery.statement, delivery.proof, delivery.grant)
    for part, digest, name in zip(parts, named, ("statement", "proof", "grant"), strict=True):
        if hashlib.sha256(part).digest() != digest:
            raise VerificationFailed(
                "disclosure.delivery", f"{what} holds another {name} than the ledger names: {otherwise}"
            )
    return delivery


def nonce_in(path: Path) -> bytes:
    """For whom a file claims to be made, NOT verified: whoever verifies it compares. Raises UsageError, DecodeError."""
    with BundleReader(path) as reader:
        bodies = [decode_entry(reader.entry(index)).body for index in reader.entry_indices()]
        shown = [body for body in bodies if isinstance(body, Disclosure)]
        if not shown:
            raise UsageError(f"{path} shows nobody an answer: sealproof verify says what it is")
        envelope = decode_envelope(reader.blob(shown[0].statement))
    try:
        return bytes.fromhex(json.loads(envelope.payload_bytes())["predicate"]["recipientNonce"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecodeError("disclosure statement", "it names no recipient's nonce") from error


def publish(source: Path, target: Path) -> None:
    """Give a verified file its name, in whatever folder: whole or not at all, and for this user's eyes."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with source.open("rb") as opened, temporary.open("xb") as file:
            temporary.chmod(0o600)
            while chunk := opened.read(1 << 20):
                file.write(chunk)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
