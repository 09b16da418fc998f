"""What the nodes of clinic and owner do in a session, in this process: two threads, two ends of a memory channel.

The proofs are real and made by both parties together (`privacy.mpc.joint_prover`); networks, cohorts and their
certificates come from `tests.support.joint_bundles`. Linear networks need no CrypTen and take a fraction of a second.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from api.joint_binding import joint_statement
from api.joint_prediction import Delivered, DeliveredProof, JointContext
from privacy.mpc.answers import AnswerShare
from privacy.mpc.channel import MemoryChannel, memory_channels
from privacy.mpc.dealer import Correlations, Role, deal
from privacy.mpc.joint_proof import JointStatement, answers_digest
from privacy.mpc.joint_prover import BatchResult, Row, prove_batch
from privacy.mpc.params import batches
from privacy.mpc.plan import batch_plan
from privacy.mpc.records import CommittedRecord
from tests.support.bundles import SCHEMA
from tests.support.joint_bundles import NetworkMaterial, RecordsMaterial

SEALED = b"the owner's shares, sealed for the clinic"


def prove_jointly(
    statement: JointStatement, records: Sequence[CommittedRecord], rows: Sequence[Sequence[Any]]
) -> dict[Role, BatchResult]:
    """Both parties' results of one batch: the same proof, and each its own shares."""
    plan = batch_plan(statement.circuit, statement.count)
    dealt = deal(plan)
    opened = [[Row(row.weights, row.bias, row.rho) for row in layer] for layer in rows]
    found: dict[Role, BatchResult] = {}
    failures: list[Exception] = []

    def run(role: Role, secret: Any, channel: MemoryChannel, part: bytes) -> None:
        try:
            found[role] = prove_batch(role, statement, secret, channel, Correlations(role, plan, part))
        except Exception as error:
            failures.append(error)
            channel.abort(str(error))

    ends = memory_channels()
    sides: list[tuple[Role, Any, MemoryChannel, bytes]] = [
        ("A", list(records), ends[0], dealt[0]),
        ("B", opened, ends[1], dealt[1]),
    ]
    threads = [threading.Thread(target=run, args=side) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert found["A"].proof == found["B"].proof
    return found


@dataclass(frozen=True)
class Computed:
    """What a session made: proofs as the owner uploads them, what he delivers, and the shares of both."""

    proofs: tuple[bytes, ...]
    delivered: Delivered
    answers: tuple[bytes, ...]
    shares: dict[Role, tuple[AnswerShare, ...]] = field(repr=False)

    def body(self, sealed: bytes = SEALED, **changes: Any) -> dict[str, Any]:
        """The JSON body of a result; `changes` replace fields of what is delivered."""
        said = replace(self.delivered, **changes)
        return {
            "session": said.session.hex(),
            "proofs": [{"digest": p.digest.hex(), "size": p.size, "answers": p.answers.hex()} for p in said.proofs],
            "sealed": base64.b64encode(sealed).decode("ascii"),
        }


def compute_session(
    context: JointContext,
    network: NetworkMaterial,
    cohort: RecordsMaterial,
    head: tuple[int, bytes],
    session: bytes | None = None,
) -> Computed:
    """A whole session about these entries under this ledger head, batch by batch."""
    session = session or secrets.token_bytes(32)
    proofs: list[bytes] = []
    delivered: list[DeliveredProof] = []
    answers: list[bytes] = []
    shares: dict[Role, tuple[AnswerShare, ...]] = {"A": (), "B": ()}
    for batch in batches(len(cohort.values)):
        part = slice(batch.start, batch.stop)
        statement = joint_statement(
            context.model,
            context.records,
            context.owner,
            context.clinic,
            SCHEMA,
            session,
            batch,
            cohort.commitments[part],
            head,
        )
        found = prove_jointly(statement, cohort.openings[part], network.rows)
        proof, points = found["A"].proof, found["A"].answers
        proofs.append(proof)
        delivered.append(DeliveredProof(sha256(proof).digest(), len(proof), answers_digest(points)))
        answers += points
        shares = {role: shares[role] + found[role].shares for role in shares}
    return Computed(tuple(proofs), Delivered(session, tuple(delivered)), tuple(answers), shares)
