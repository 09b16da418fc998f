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
from typing import Final

from api.witness.client import WitnessClient
from ledger import Log, VerifiedHead, open_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.errors import CorruptLog, VerificationFailed
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

    A witness may show a head that our own key signed and that this log does not have: then the ledger was restored from
    an old copy, and whatever is appended to it makes a fork. Nothing is published any more, and `check` says so.
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
        self._asked: dict[WitnessClient, tuple[int, float]] = {}
        """By witness: for which size it was asked last, and when."""
        self._answers: dict[WitnessClient, tuple[str, Signature]] = {}
        """By witness: its newest cosignature, and of which head."""
        self._lost: VerifiedHead | None = None
        """A head that we signed, and that this log does not have."""
        self._wake = threading.Event()
        self._end = threading.Event()
        self._stopping = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sealproof-publisher", daemon=True)

    def start(self) -> None:
        """Begin, with what may have been appended and not published before.

        Witnesses are asked first what they saw last, for as long as a head may wait for them.
        """
        asking = [
            threading.Thread(target=self._look_ahead, args=(client,), name="sealproof-witness", daemon=True)
            for client in self._clients
        ]
        for thread in asking:
            thread.start()
        end = time.monotonic() + self._seconds
        for thread in asking:
            thread.join(max(0.0, end - time.monotonic()))
        self._wake.set()
        self._thread.start()

    def check(self) -> None:
        """Raise CorruptLog if a witness has seen a head of ours that this log does not have."""
        lost = self._lost
        if lost is not None:
            raise CorruptLog(
                f"this ledger's key signed a head of {lost.size} entries that a witness saw and that is not in it: it "
                "was restored from an old copy (restore the newest), or somebody else has the key (start a new log). "
                "Nothing is appended or published until then"
            )

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
            if self._enough(head.note):
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
        """Publish the newest integrated head if it is not yet, or with cosignatures that have come since."""
        head = self._log.head()
        if head.size == 0 or self._lost is not None:
            return
        published = self._log.publications(head.size, 1)
        if published:
            note = published[0].note
        else:
            self._add_late()
            text = Note.parse(head.note).text.encode("utf-8")
            note = with_cosignatures(head.note, [self._clock.cosign(text, int(time.time()))])
        self._ask_missing(head, Note.parse(note).signatures)
        if not published:
            self._wait_for_quorum(note)
        answered = self._answered(note)
        if (published and answered == note) or self._lost is not None:
            return
        self._log.publish(answered)
        with self._news:
            self._news.notify_all()

    def _add_late(self) -> None:
        """Before a newer head is looked at: wait as long again for witnesses that are still busy with the last one.

        Whoever appends fast would else see to it that no head ever has a quorum: each would be left behind while slow
        witnesses look at it.
        """
        note = self._log.published().note
        self._wait_for_quorum(note)
        if (answered := self._answered(note)) != note:
            self._log.publish(answered)

    def _ask_missing(self, head: VerifiedHead, signatures: Sequence[Signature]) -> None:
        """Ask every witness that has not cosigned and is not being asked, for the same head not too often."""
        now = time.monotonic()
        for client in self._clients:
            if client in self._asking or any(_by(client, s) for s in signatures):
                continue
            size, since = self._asked.get(client, (0, 0.0))
            if size == head.size and now - since < _AGAIN_SECONDS:
                continue
            self._asked[client] = (head.size, now)
            self._asking.add(client)
            # A thread of its own: a witness that never ends its answer keeps neither us nor the process waiting.
            threading.Thread(target=self._ask, args=(client, head), name="sealproof-witness", daemon=True).start()

    def _wait_for_quorum(self, note: bytes) -> None:
        """Wait until the policy is satisfied, nobody is asked any more, or the time is over."""
        end = time.monotonic() + self._seconds
        with self._news:
            while not self._stopping:
                left = end - time.monotonic()
                if self._enough(self._answered(note)) or left <= 0 or not any(c in self._asking for c in self._clients):
                    return
                self._news.wait(left)

    def _answered(self, note: bytes) -> bytes:
        """The note with the cosignatures of its head that witnesses have sent since."""
        text = Note.parse(note).text
        answers = [self._answers.get(client) for client in self._clients]
        return with_cosignatures(note, [answer[1] for answer in answers if answer is not None and answer[0] == text])

    def _enough(self, note: bytes) -> bool:
        if self._policy is None:
            return True
        try:
            self._policy.open(note, self._log.origin)
        except VerificationFailed:
            return False
        return True

    def _ask(self, client: WitnessClient, head: VerifiedHead) -> None:
        signature: Signature | None = None
        try:
            signature = self._cosignature(client, head)
        except Exception as error:
            # Whatever a witness makes its client run into: it is that witness's cosignature that is missing, no more.
            if not self._stopping:
                _LOGGER.warning("witness %s did not cosign size %d: %s", client.name, head.size, error)
        with self._news:
            if signature is not None:
                self._answers[client] = (Note.parse(head.note).text, signature)
            self._asking.discard(client)
            self._news.notify_all()
        self._wake.set()  # it may be late for the first publication of this head, and in time for the next

    def _cosignature(self, client: WitnessClient, head: VerifiedHead) -> Signature | None:
        old = min(self._known.get(client, 0), head.size)
        for _ in range(_ATTEMPTS):
            answer = client.add_checkpoint(old, self._log.consistency_proof(old, head.size), head.note)
            if answer.signature is not None:
                self._known[client] = head.size
                return answer.signature
            if answer.known_size is None or answer.known_size > head.size:
                _LOGGER.warning("witness %s did not cosign size %d: %s", client.name, head.size, answer.reason)
                self._look_ahead(client)
                return None
            old = self._known[client] = answer.known_size
        return None

    def _look_ahead(self, client: WitnessClient) -> None:
        """Compare the last head that a witness cosigned with ours. Only what our own key signed counts."""
        try:
            seen = open_checkpoint(client.latest(self._log.origin), self._log.verifier, self._log.origin)
            size = self._log.size
            if seen.size > size or (seen.size and self._log.root_at(seen.size) != seen.root):
                self._lost = seen
                _LOGGER.critical("witness %s has seen %d entries of ours; here are %d", client.name, seen.size, size)
        except Exception as error:
            _LOGGER.info("witness %s does not show what it saw last: %s", client.name, error)


def _by(client: WitnessClient, signature: Signature) -> bool:
    return (client.verifier.name, client.verifier.key_id) == (signature.name, signature.key_id)
