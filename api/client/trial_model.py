"""Which entry of a ledger a trial is about, and what its threshold is in grid steps: for the organiser."""

from __future__ import annotations

from typing import cast, get_args

from api.binding import Located
from api.client.session import check_model_name, listed_model, log_errors
from api.client.transport import Server
from api.client.trust import TrustedLog
from api.entries import Network, Reference, decode_entry
from ledger import TlogProof
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import Link, raw_threshold

__all__ = ["published_network", "trial_threshold"]


def published_network(server: Server, log: TrustedLog, which: str | int) -> Located[Network]:
    """A network by ledger index, or the newest of a name ("heart", or "heart 2" with its version), included in `log`.

    Raises UsageError as `listed_model` does, and for a model for encrypted records, whose answers cannot be disclosed;
    VerificationFailed (`model.name` for a server that lists it under another name), DecodeError, ServerError.
    """
    index = listed_model(server, which) if isinstance(which, str) else which
    data = server.entry(index)
    with log_errors():
        proof = TlogProof.parse(server.proof(index))
        if proof.index != index:
            raise VerificationFailed("log.index", f"asked for entry {index}, got {proof.index}")
        proof.verify(data, log.verifier, log.origin)
        log.witnesses(proof.checkpoint)
    body = decode_entry(data).body
    if isinstance(which, str):
        check_model_name(which, body)
    if not isinstance(body, Network):
        raise UsageError(f"entry {index} is no network: only answers of two-party computation can be disclosed")
    return Located(Reference.to(index, data), body)


def trial_threshold(network: Network, output: str | None, at_least: float) -> tuple[int, int]:
    """The output's place and the threshold in grid steps. `output` is the first by default; `at_least` is a probability
    for a logit, else a raw answer, and is rounded up to the grid. Raises UsageError."""
    name = network.outputs[0] if output is None else output
    if name not in network.outputs:
        raise UsageError(f"there is no output {name!r}; there is {', '.join(network.outputs)}")
    if network.link not in get_args(Link):
        raise UsageError(f"the link {network.link!r} of this network is not known")
    return network.outputs.index(name), raw_threshold(cast(Link, network.link), at_least, network.grid_bits)
