"""Which models a server serves: with a governance file, those that enough hospitals approve.

Approvals are ledger entries; whether hospitals have withdrawn since is asked of the contract, if the operator names a
node of its chain. What the contract said is good for a minute, so that a node that does not answer for a moment stops
nothing; after that nothing is served until it answers again. Nothing here talks to the node while the caller may hold a
lock: `ask` and `require` do, `check` and `approval` never.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from api.entry_parts import Reference
from api.errors import NotReady, PredictionRefused
from api.governance import ApprovalContract, Governance
from api.registry import Registry
from api.settings import Settings
from ledger.errors import ChainUnavailable, LedgerError
from privacy.errors import UsageError, VerificationFailed

__all__ = ["ApprovalGate", "approval_gate"]

_FRESH_SECONDS: Final = 5.0
"""What the contract said is not asked again before; a block takes longer on most chains."""

_STALE_SECONDS: Final = 60.0
"""What the contract said is not believed after."""

_LOGGER: Final = logging.getLogger("sealproof.governance")


class ApprovalGate:
    """Approvals of models, for a server. Without a governance file every model is served. Safe to use from threads."""

    def __init__(
        self,
        registry: Registry,
        governance: Governance | None,
        contract: ApprovalContract | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if contract is not None and (governance is None or registry.origin is None):
            raise UsageError("a contract is asked about the models of a governance file, in a log with a name")
        self._registry = registry
        self._governance = governance
        self._contract = contract
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[int, tuple[float, VerificationFailed | None]] = {}
        """By model entry: when the contract was asked, and why it does not approve (None: it does)."""

    def approval(self, model: Reference, size: int | None = None) -> int | None:
        """The newest approval of this model, within the first `size` entries, that satisfies the governance file.

        None without a file. Raises PredictionRefused(`model.unapproved`).
        """
        governance = self._governance
        if governance is None:
            return None
        reasons = []
        for found in reversed(self._registry.approvals_of(model, size)):
            try:
                governance.check(found.body)
            except VerificationFailed as error:
                reasons.append(str(error))
            else:
                return found.reference.index
        reason = reasons[0] if reasons else "no approval of it is on the ledger"
        if size is not None:
            reason += f", under the head of {size} entries"
        raise PredictionRefused("model.unapproved", f"this server serves approved models only, {model.index}: {reason}")

    def check(self, model: Reference) -> None:
        """Raise unless the model is approved, as far as it was asked lately. Nobody is asked now.

        Raises PredictionRefused(`model.unapproved`), NotReady if the contract was not heard of for a minute.
        """
        self.approval(model)
        if self._contract is None:
            return
        with self._lock:
            said = self._said.get(model.index)
        if said is None or self._clock() - said[0] > _STALE_SECONDS:
            raise NotReady("whether hospitals still approve this model could not be asked lately: try again")
        _raise(model.index, said[1])

    def ask(self, model: int) -> None:
        """Ask the contract about model entry `model`, unless it was asked just now. Not to be called under a lock.

        Raises PredictionRefused(`model.unapproved`), ChainUnavailable, and NotReady for a node or contract that is not
        the governance file's.
        """
        if self._contract is None or self._governance is None or self._registry.origin is None:
            return
        reference, now = self._registry.reference(model), self._clock()
        with self._lock:
            said = self._said.get(model)
        if said is None or now - said[0] > _FRESH_SECONDS:
            refusal = None
            try:
                self._governance.check_contract(self._contract, self._registry.origin, reference)
            except VerificationFailed as error:
                refusal = error
            except ChainUnavailable:
                raise
            except (LedgerError, UsageError) as error:
                _LOGGER.error("the governance contract cannot be used: %s", error)
                raise NotReady("the governance contract of this server cannot be used") from error
            with self._lock:
                # Somebody else may have asked later and heard sooner: an older answer never takes a newer one's place.
                newer = self._said.get(model)
                said = newer if newer is not None and newer[0] > now else (now, refusal)
                self._said[model] = said
        _raise(model, said[1])

    def require(self, model: int) -> None:
        """As `ask`, for somebody who makes a request. Raises PredictionRefused(`model.unapproved`), NotReady."""
        try:
            self.ask(model)
        except ChainUnavailable as error:
            _LOGGER.warning("the governance contract was not asked: %s", error)
            raise NotReady("whether hospitals still approve this model cannot be asked now: try again") from error

    def refresh(self, models: set[int]) -> None:
        """Ask about these models, whatever the answers are: `check` tells them."""
        for model in models:
            with contextlib.suppress(PredictionRefused, NotReady):
                self.require(model)


def _raise(model: int, refusal: VerificationFailed | None) -> None:
    if refusal is not None:
        raise PredictionRefused("model.unapproved", f"model {model}: {refusal}") from refusal


def approval_gate(settings: Settings, registry: Registry, undo: contextlib.ExitStack) -> ApprovalGate:
    """The gate that a server's settings ask for; `undo` closes it. The registry must know the log's origin.

    Raises UsageError, DecodeError for a governance file that is none, ChainRefused for a contract that is another, and
    MissingDependency without web3. A node that does not answer yet is asked again later.
    """
    if settings.governance is None:
        if settings.governance_rpc is not None:
            raise UsageError("governance_rpc needs a governance file: set governance, too")
        return ApprovalGate(registry, None)
    governance = Governance.load(settings.governance)
    if settings.governance_rpc is None:
        return ApprovalGate(registry, governance)
    from api.chain.governance import ChainApprovals

    contract = ChainApprovals(settings.governance_rpc, governance)
    undo.callback(contract.close)
    try:
        contract.open()
    except ChainUnavailable as error:
        _LOGGER.warning("%s; nothing is served until it answers", error)
    return ApprovalGate(registry, governance, contract)
