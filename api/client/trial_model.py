"""Which entry of a ledger a trial is about, and what its threshold is in grid steps: for the organiser."""

from __future__ import annotations

from api.binding import Located, parameters_of
from api.client.questions import link_of, output_names
from api.client.session import LocatedModel, check_model_name, listed_model, log_errors
from api.client.transport import Server
from api.client.trust import TrustedLog
from api.entries import Model, Network, Reference, decode_entry
from ledger import TlogProof
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import raw_threshold

__all__ = ["published_model", "trial_threshold"]


def published_model(server: Server, log: TrustedLog, which: str | int) -> LocatedModel:
    """A model of either scheme by ledger index, or the newest of a name ("heart", or "heart 2" with its version),
    included in `log`.

    Raises UsageError as `listed_model` does, and for an entry that is no model; VerificationFailed (`model.name` for a
    server that lists it under another name), DecodeError, ServerError.
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
    reference = Reference.to(index, data)
    if isinstance(body, Model):
        return Located(reference, body)
    if isinstance(body, Network):
        return Located(reference, body)
    raise UsageError(f"entry {index} is no model")


def trial_threshold(model: LocatedModel, output: str | None, at_least: float) -> tuple[int, int]:
    """The output's place and the threshold in grid steps. `output` is the first by default; `at_least` is a probability
    for a logit, else a raw answer, and is rounded up to the grid. Raises UsageError; so it does for a softmax, and for
    a threshold that no answer reaches."""
    names = output_names(model)
    name = names[0] if output is None else output
    if name not in names:
        raise UsageError(f"there is no output {name!r}; there is {', '.join(names)}")
    place = names.index(name)
    threshold = raw_threshold(link_of(model, place), at_least, model.body.grid_bits)
    # A decryption is within Q/2, a committed answer below 2^62, in units of which many make up a grid step.
    if isinstance(model.body, Network):
        scale_bits, most = model.body.answer_scale_bits, 1 << 62
    else:
        params = parameters_of(model.body.parameter_set)
        scale_bits, most = params.D, params.Q // 2
    if abs(threshold) << (scale_bits - model.body.grid_bits) >= most:
        raise UsageError(f"no answer of this model reaches {at_least}")
    return place, threshold
