"""A scene of the demonstration: a node whose software was changed, what it achieves, and how the pair goes on after it.

The changed software is `api.demo.cheating_node`. Everything else is the product: both nodes notice that the proof would
not hold before either can see by how much, the pair is suspended in both folders and on the ledger, and only after both
owners have cleared it do they compute together again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from api.client.clinic import Clinic, JobFailed, PredictionRequest, SubmittedRecords
from api.client.owner import Owner
from api.client.scores import Scores
from api.client.session import LocatedModel
from api.client.transport import ServerRefused
from api.demo.joint_report import CheatReport
from api.demo.processes import Parties
from api.demo.telling import BOTH_NODES, Clock, say
from api.mpc.clearing import clear, standing

__all__ = ["CheatingScene"]

_CHANGED: Final = "api.demo.cheating_node"
_CHECK: Final = "joint.blind-check"
_REFUSED: Final = "mpc.suspended"
_PARTIES: Final = 2
_PAUSE_SECONDS: Final = 0.1
_WAIT_SECONDS: Final = 60.0


class CheatingScene:
    """The scene between `owner` and `clinic`, whose nodes are among `processes`, about committed `records`."""

    def __init__(
        self, owner: Owner, clinic: Clinic, processes: Parties, records: SubmittedRecords, model: LocatedModel
    ) -> None:
        self._owner, self._clinic, self._processes = owner, clinic, processes
        self._records, self._model = records, model

    def tell(self, check: Callable[[Scores], object]) -> CheatReport:
        """Tell it. `check` raises unless the scores of the last prediction are right; so does all that should hold."""
        say("\nNow a node that cheats: a single bit that it sends is wrong, as if to find out a patient's measurement")
        clock, clinic, owner = Clock(), self._clinic, self._owner
        clock.time("owner's node", "start again with changed software", lambda: self._processes.start_owner(_CHANGED))
        request = clock.time("clinic", "ask for predictions", lambda: clinic.request(self._records, self._model))
        said = clock.time(
            BOTH_NODES,
            f"find that the proof would not hold ({_CHECK}), stop, and say so on the ledger",
            lambda: self._both_suspend(request),
        )
        failure = clock.time("clinic", "read that there are no answers, and why", lambda: self._failure(request))
        refusal = clock.time("server", f"refuse the next request about these two ({_REFUSED})", self._refusal)
        clock.time("owner's node", "start again with the product's software", self._processes.start_owner)
        clock.time(
            "clinic",
            f"look into it, then `sealproof mpc clear {owner.session.identity.name}`",
            lambda: clear(clinic.session, owner.session.identity.name),
        )
        clock.time(
            "model owner", f"the same, `sealproof mpc clear {clinic.name}`", lambda: clear(owner.session, clinic.name)
        )
        scores = clock.time(
            BOTH_NODES,
            "compute together again; verified and opened, every answer is right",
            lambda: clinic.predict(self._records, self._model, timeout=_WAIT_SECONDS),
        )
        check(scores)
        return CheatReport(clock.steps, clinic_said=said[0], owner_said=said[1], failure=failure, refusal=refusal)

    def _both_suspend(self, request: PredictionRequest) -> tuple[str, str]:
        """What the clinic's node and the owner's say at the end of the session, once both have written it down."""
        said = []
        for node in (self._processes.clinic, self._processes.owner):
            said.append(node.find(rf"job {request.job} ended: (.*)", "end of the session")[1].strip())
            if _CHECK not in said[-1]:
                raise RuntimeError(f"the {node.name} ended the session for another reason: {said[-1]}")
        end = time.monotonic() + _WAIT_SECONDS
        while sum(len(found.open) for found in standing(self._clinic.session)) < _PARTIES:
            if time.monotonic() > end:
                raise RuntimeError("the suspension of the pair is not on the ledger")
            time.sleep(_PAUSE_SECONDS)
        return said[0], said[1]

    def _failure(self, request: PredictionRequest) -> str:
        try:
            self._clinic.fetch(request)
        except JobFailed as error:
            return str(error)
        raise RuntimeError("a session with a cheating node ended with answers")

    def _refusal(self) -> str:
        try:
            self._clinic.request(self._records, self._model)
        except ServerRefused as error:
            if error.check != _REFUSED:
                raise
            return error.message
        raise RuntimeError("a suspended pair could ask for predictions")
