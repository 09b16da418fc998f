"""Publishing heads: what was appended durably is shown to the witnesses, and then to the world.

    append (durable, signed)  ->  witnesses cosign  ->  publish  ->  readers

Only a stored head is ever sent to a witness, so that no crash leaves a witness with a head that the log does not have.
The server's own clock cosigns every head as `<origin>/clock`, with the key of the server's party entry: its word about
the time, dated and signed. A head is published when the quorum of the witness policy has cosigned it, or after a while
without: whether that is enough is for each reader's policy to say. Cosignatures that were missing are asked for again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Final

from api.witness.client import WitnessClient
from ledger import Log, VerifiedHead
from ledger.cosignature import Cosigner
from ledger.errors import VerificationFailed
from ledger.note import Note, Signature
from ledger.trust_policy import TlogPolicy

__all__ = ["Publisher"]

_POLL_SECONDS: Final = 0.05
_FAILED_SECONDS: Final = 1.0
"""After a failure of the disk or a database, which may last the night and is written to the log each time."""
_AGAIN_SECONDS: Final = 10.0
"""How often witnesses whose cosignature is missing are asked again for the same head."""
_LOOKED_AT: Final = 64
"""Published heads that are looked at for the first one with a quorum."""
_ATTEMPTS: Final = 3
"""A witness that knows another size than we thought tells it, and is asked again."""
_LOGGER: Final = logging.getLogger("sealproof.publishing")


class Publisher:
    """Publishes the heads of `log`. `seconds`: how long the quorum of `policy` is waited for before each.

    Without a policy heads are published with the clock's cosignature alone.
    """

    def __init__(
        self,
        log: Log,
        clock: Cosigner,
        policy: TlogPolicy | None,
        clients: Sequence[WitnessClient],
        seconds: float,
    ) -> None:
        self._log = log
        self._clock = clock
        self._policy = policy
        self._clients = list(clients)
        self._seconds = seconds
        self._known: dict[WitnessClient, int] = {}
        """By witness: the size that it knows, as far as we know."""
        self._asking: set[WitnessClient] = set()
        self._asked = (0, 0.0)
        """Size and time of the last round of questions."""
        self._wake = threading.Event()
        self._end = threading.Event()
        self._stopping = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sealproof-publisher", daemon=True)

    def start(self) -> None:
        """Begin, with what may have been appended and not published before."""
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Stop after the head in hand."""
        self._stopping = True
        self._end.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """There is a new head."""
        self._wake.set()

    def wait_for(self, size: int, timeout: float) -> bool:
        """Wait until a head of at least `size` entries is published; whether it is, after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not self._log.publications(size, 1):
            left = end - time.monotonic()
            if left <= 0 or self._stopping:
                return False
            with self._news:  # the leader may be another process: so look from time to time
                self._news.wait(min(left, _POLL_SECONDS))
        return True

    def first_head_with(self, index: int) -> VerifiedHead:
        """The oldest published head that includes entry `index` and has the quorum: its cosignatures date the entry.

        The newest head where none has it.
        """
        for head in self._log.publications(index + 1, _LOOKED_AT):
            if self._enough(head.note, head.origin):
                return head
        return self._log.published()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_POLL_SECONDS if self._log.shared else 1.0)
            self._wake.clear()
            try:
                self.publish()
            except Exception:
                # The disk or a database failed. Nothing was shown; the same head is tried again.
                _LOGGER.exception("a head could not be published; it is tried again")
                self._end.wait(_FAILED_SECONDS)

    def publish(self) -> None:
        """Publish the newest integrated head if it is not yet, or with cosignatures that were missing."""
        head = self._log.head()
        if head.size == 0:
            return
        last = self._log.publications(head.size, 1)
        signatures = Note.parse(last[0].note).signatures if last else Note.parse(head.note).signatures
        fresh = not last
        if fresh:
            now = int(time.time())
            text = Note.parse(head.note).text.encode("utf-8")
            signatures = (*signatures, self._clock.cosign(text, now))
        missing = [c for c in self._clients if not any(_by(c, s) for s in signatures)]
        missing = [c for c in missing if c not in self._asking]
        if not fresh and not missing:
            return
        if not fresh and self._asked[0] == head.size and time.monotonic() - self._asked[1] < _AGAIN_SECONDS:
            return
        self._asked = (head.size, time.monotonic())
        gathered = self._gather(head, signatures, missing)
        if fresh or len(gathered) > len(signatures):
            self._log.publish(Note(Note.parse(head.note).text, gathered).format())
            with self._news:
                self._news.notify_all()

    def _gather(
        self, head: VerifiedHead, signatures: tuple[Signature, ...], clients: Sequence[WitnessClient]
    ) -> tuple[Signature, ...]:
        """`signatures`, and those of the witnesses that answer before the quorum is reached or the time is over."""
        text = Note.parse(head.note).text
        futures: dict[Future[Signature | None], WitnessClient] = {}
        for client in clients:
            self._asking.add(client)
            futures[self._begin(client, head)] = client
        end = time.monotonic() + self._seconds
        pending: set[Future[Signature | None]] = set(futures)
        while pending and not self._enough(Note(text, signatures).format(), head.origin):
            done, pending = wait(pending, max(0.0, end - time.monotonic()), "FIRST_COMPLETED")
            if not done:
                break
            signatures = (*signatures, *(s for future in done if (s := future.result()) is not None))
        return signatures

    def _enough(self, note: bytes, origin: str) -> bool:
        if self._policy is None:
            return True
        try:
            self._policy.open(note, origin)
        except VerificationFailed:
            return False
        return True

    def _begin(self, client: WitnessClient, head: VerifiedHead) -> Future[Signature | None]:
        """Ask in a thread of its own: a witness that never ends its answer keeps neither us nor the process waiting."""
        future: Future[Signature | None] = Future()
        threading.Thread(
            target=lambda: future.set_result(self._ask(client, head)), name="sealproof-witness", daemon=True
        ).start()
        return future

    def _ask(self, client: WitnessClient, head: VerifiedHead) -> Signature | None:
        try:
            old = min(self._known.get(client, 0), head.size)
            for _ in range(_ATTEMPTS):
                answer = client.add_checkpoint(old, self._log.consistency_proof(old, head.size), head.note)
                if answer.signature is not None:
                    self._known[client] = head.size
                    return answer.signature
                if answer.known_size is None or answer.known_size > head.size:
                    _LOGGER.warning("witness %s did not cosign size %d: %s", client.name, head.size, answer.reason)
                    return None
                old = self._known[client] = answer.known_size
            return None
        except Exception as error:
            # Whatever a witness makes its client run into: it is that witness's cosignature that is missing, no more.
            if not self._stopping:
                _LOGGER.warning("witness %s did not cosign size %d: %s", client.name, head.size, error)
            return None
        finally:
            self._asking.discard(client)


def _by(client: WitnessClient, signature: Signature) -> bool:
    return (client.verifier.name, client.verifier.key_id) == (signature.name, signature.key_id)
