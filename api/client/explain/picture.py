"""Who gives what to whom, for the picture of the page: clinic, ledger, server, proof, reader, and others beside."""

from __future__ import annotations

from api.client.explain.document import Arrow, Picture, Place
from api.client.explain.facts import Facts, many

__all__ = ["picture"]


def picture(facts: Facts) -> Picture:
    """The places and arrows of a verified bundle."""
    found = facts.prediction
    records, model, prediction = (one.reference.index for one in (found.records, found.model, found.prediction))
    places = [
        Place("clinic", "clinic", facts.clinic.body.name, 0, 0),
        Place("owner", "model owner", found.owner.name, 0, 1),
        Place("ledger", "ledger", found.head.origin, 1, 0),
        Place("server", "server", found.server.name, 2, 0),
        Place("proof", "proof", many(len(found.prediction.body.proofs), "proof"), 3, 0),
        Place("reader", "reader", "you", 4, 0),
    ]
    if facts.ckks is not None:
        given = [
            Arrow("clinic", "ledger", f"digests of its key and of {many(found.count, 'encrypted record')}"),
            Arrow("owner", "ledger", f"a commitment to the weights of its model (entry {model})"),
            Arrow("ledger", "server", f"which records, which model (entries {records} and {model})"),
            Arrow("server", "proof", f"encrypted answers and their proof (entry {prediction})"),
        ]
    else:
        given = [
            Arrow("clinic", "ledger", f"commitments to {many(found.count, 'record')} (entry {records})"),
            Arrow("owner", "ledger", f"commitments to the weights of its network (entry {model})"),
            Arrow("ledger", "server", "which records, which network; clinic and owner compute together"),
            Arrow("server", "proof", f"committed answers and the joint proof (entry {prediction})"),
        ]
    given.append(Arrow("proof", "reader", "all that is needed to check it"))
    _shown(facts, places, given)
    if found.approval is not None:
        places.append(Place("hospitals", "hospitals", many(len(found.approval.body.signatures), "key"), 3, 1))
        given.append(
            Arrow("hospitals", "ledger", f"their approval of the model (entry {found.approval.reference.index})")
        )
    return Picture(tuple(places), tuple(given))


def _shown(facts: Facts, places: list[Place], given: list[Arrow]) -> None:
    """Who was shown something, and who had asked."""
    found = facts.disclosure
    if found is None:
        return
    consent = found.consent
    name = "who chose the nonce" if consent is None or consent.consumer is None else consent.consumer.name
    places.append(Place("consumer", "recipient", name, 2, 1))
    if consent is not None and consent.request is not None:
        given.append(Arrow("consumer", "ledger", f"its request (entry {consent.request.reference.index})"))
    under = "without consent on the ledger" if consent is None else f"consent in entry {consent.grant.reference.index}"
    shown = f"{many(len(found.facts), 'answer')}, with a proof (entry {found.entry.reference.index}; {under})"
    given.append(Arrow("clinic", "consumer", shown))
