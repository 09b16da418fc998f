"""A published model against a weight policy, by anybody: its certificate and every statement are verified first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import Final

from api.binding import verify_model_entry, verify_model_statements
from api.entries import Model, Network
from privacy.errors import UsageError
from privacy.models.certificate import ModelStatement
from privacy.models.policy import Verdict, WeightPolicy
from privacy.models.weight_statements import WeightStatement
from privacy.zk.group import ARKWORKS, Group

__all__ = ["VerifiedWeights", "verify_weights"]

_VERIFIED: Final = object()


@dataclass(frozen=True)
class VerifiedWeights:
    """What is proven of a model's weights. Only `verify_weights` makes one."""

    model: ModelStatement
    proven: tuple[WeightStatement, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("VerifiedWeights are made by verify_weights only")

    def verdicts(self, policy: WeightPolicy) -> tuple[Verdict, ...]:
        """Each rule for each output. Raises UsageError for rules about features or outputs of another model."""
        return policy.verdicts(self.model, self.proven)


def verify_weights(model: Model | Network, blob: Callable[[bytes], bytes], group: Group = ARKWORKS) -> VerifiedWeights:
    """Verify the certificate of a model and every statement of its entry; `blob` fetches by digest, which it checks.

    The entry itself is the caller's to check against the ledger.

    Raises:
        UsageError: a network, of whose weights nothing can be proven singly.
        DecodeError: a malformed blob.
        VerificationFailed: the check that failed.
    """
    if isinstance(model, Network):
        raise UsageError(
            f"{model.name!r} {model.version!r} is a network: nothing is proven of single weights of a network, so no "
            "weight policy applies to it"
        )
    verified = verify_model_entry(model, blob(model.schema), blob(model.certificate), group)
    verify_model_statements(verified, model, [blob(statement.proof) for statement in model.statements])
    return VerifiedWeights(verified.statement, tuple(s.stated for s in model.statements), _VERIFIED)
