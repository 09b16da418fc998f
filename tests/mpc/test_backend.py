"""CrypTen computes exact integers from dealt randomness alone, over the given channel and nothing else."""

from __future__ import annotations

import io
import json
import os
import pickle
import queue
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from privacy.errors import MissingDependency, SessionBroken, UsageError
from privacy.models.network_quantise import LayerShape
from privacy.mpc.channel import MemoryChannel, StreamChannel, memory_channels
from privacy.mpc.dealer import Correlations, ElementTriple, FieldProducts, deal

backend = pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
torch, hidden_words, ring_plan = backend.torch, backend.hidden_words, backend.ring_plan

WIDTHS = {"one hidden layer": (30, 16, 1), "two hidden layers": (7, 5, 3, 2), "narrow": (1, 1, 1, 1)}


def shapes_of(widths: tuple[int, ...]) -> list[LayerShape]:
    return [LayerShape(inputs, outputs, 8, 12, 24) for inputs, outputs in pairwise(widths)]


@dataclass
class Case:
    """Secrets of both parties and the integers that must come out."""

    shapes: list[LayerShape]
    records: np.ndarray
    layers: list[tuple[np.ndarray, np.ndarray]]

    @property
    def patients(self) -> int:
        return len(self.records)

    def expected(self) -> list[list[list[int]]]:
        """Pre-activations of the hidden layers in Python's integers, in 64-bit two's complement."""
        activations = [[int(v) for v in row] for row in self.records]
        out = []
        for weights, bias in self.layers[:-1]:
            h = [
                [
                    sum(int(w) * v for w, v in zip(row, a, strict=True)) + int(b)
                    for row, b in zip(weights, bias, strict=True)
                ]
                for a in activations
            ]
            activations = [[signed(v) if signed(v) >= 0 else 0 for v in row] for row in h]
            out.append([[v % 2**64 for v in row] for row in h])
        return out


def signed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def case(widths: tuple[int, ...], patients: int, draw: Callable[[int, tuple[int, ...]], np.ndarray]) -> Case:
    """`draw(bits, shape)` gives int64 within +-2^bits."""
    shapes = shapes_of(widths)
    layers = [(draw(12, (s.outputs, s.inputs)), draw(24, (s.outputs,))) for s in shapes]
    return Case(shapes, draw(17, (patients, widths[0])), layers)


def random_draw(bits: int, shape: tuple[int, ...]) -> np.ndarray:
    limit = 1 << bits
    flat = [secrets.randbelow(2 * limit) - limit for _ in range(int(np.prod(shape)))]
    return np.array(flat, dtype=np.int64).reshape(shape)


def constant(value: int) -> Callable[[int, tuple[int, ...]], np.ndarray]:
    return lambda bits, shape: np.full(shape, value if abs(value) < 2 else value // abs(value) << bits, dtype=np.int64)


def words_of_64_bits(bits: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(secrets.token_bytes(8 * int(np.prod(shape))), dtype=np.int64).reshape(shape)


@dataclass
class Outcome:
    """What both parties hold after a run, and what is left of their randomness and channels."""

    of_A: list[np.ndarray]
    of_B: list[np.ndarray]
    correlations: tuple[Correlations, Correlations]
    channels: tuple[StreamChannel, StreamChannel]

    @property
    def opened(self) -> list[list[list[int]]]:
        return [(x ^ y).tolist() for x, y in zip(self.of_A, self.of_B, strict=True)]


def run(some: Case, channels: tuple[StreamChannel, StreamChannel] | None = None, plan=None) -> Outcome:
    """Both parties in two threads of this process."""
    channels = channels or memory_channels(timeout=20)
    plan = ring_plan(some.shapes, some.patients) if plan is None else plan
    correlations = tuple(Correlations(role, plan, part) for role, part in zip("AB", deal(plan), strict=True))
    key = secrets.token_bytes(32)
    secret_of = (some.records, some.layers)
    with ThreadPoolExecutor(2) as threads:
        tasks = [
            threads.submit(
                hidden_words, role, some.shapes, some.patients, secret_of[n], channels[n], correlations[n], key
            )
            for n, role in enumerate("AB")
        ]
    return Outcome(*(task.result() for task in tasks), correlations, channels)


@pytest.mark.parametrize("patients", [1, 5])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_the_shares_open_to_the_exact_integers(widths: tuple[int, ...], patients: int) -> None:
    for _ in range(4):
        some = case(widths, patients, random_draw)
        outcome = run(some)
        assert outcome.opened == some.expected()
        assert [w.shape for w in outcome.of_A] == [(patients, s.outputs) for s in some.shapes[:-1]]
        assert all(w.dtype == np.uint64 for w in (*outcome.of_A, *outcome.of_B))


EXTREMES = {"zeros": 0, "ones": 1, "minus ones": -1, "largest": 2, "smallest": -2}


@pytest.mark.parametrize("records", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("weights", EXTREMES.values(), ids=EXTREMES)
def test_extreme_values_are_exact(records: int, weights: int) -> None:
    some = case((6, 3, 2, 1), 2, constant(weights))
    some.records[:] = constant(records)(17, some.records.shape)
    assert run(some).opened == some.expected()


@pytest.mark.parametrize("edge", [2**62 - 1, -(2**62), 2**63 - 1, -(2**63), -1, 0])
def test_pre_activations_at_the_edges_keep_all_their_bits(edge: int) -> None:
    some = case((2, 1, 1, 1), 1, constant(0))
    some.layers[0] = (some.layers[0][0], np.array([edge], dtype=np.int64))
    some.layers[1] = (np.array([[1]]), np.array([0]))
    assert run(some).opened == some.expected() == [[[edge % 2**64]], [[max(edge, 0)]]]


def test_arithmetic_is_modulo_the_word_for_all_words() -> None:
    for _ in range(5):
        some = case((4, 3, 3, 1), 3, words_of_64_bits)
        assert run(some).opened == some.expected()


def test_a_batch_of_the_largest_size_is_exact() -> None:
    some = case((30, 16, 1), 64, random_draw)
    assert run(some).opened == some.expected()


@pytest.mark.parametrize("patients", [1, 5])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_the_plan_is_exactly_what_is_asked_for(widths: tuple[int, ...], patients: int) -> None:
    outcome = run(case(widths, patients, random_draw))
    assert [party.left for party in outcome.correlations] == [0, 0]


def test_a_plan_may_go_on_after_the_hidden_layers() -> None:
    some = case((3, 2, 1), 2, random_draw)
    outcome = run(some, plan=(*ring_plan(some.shapes, 2), FieldProducts((5,))))
    assert outcome.opened == some.expected()
    (R_A, r_A), (R_B, r_B) = (party.field_products((5,)) for party in outcome.correlations)
    assert len(R_A) == len(R_B) == 5 and len(r_A) == len(r_B) == 1


def test_a_linear_model_has_no_hidden_layers_and_sends_nothing() -> None:
    some = case((3, 2), 4, random_draw)
    assert ring_plan(some.shapes, 4) == ()
    outcome = run(some)
    assert outcome.opened == []
    assert [channel.sent_bytes for channel in outcome.channels] == [0, 0]


def test_neither_party_s_shares_nor_messages_show_the_values() -> None:
    """One and the same computation, twice: everything that is sent and every share differs."""
    some = case((30, 16, 4, 1), 2, random_draw)
    first, second = (run(some, recorded()) for _ in range(2))
    for left, right in zip((*first.of_A, *first.of_B), (*second.of_A, *second.of_B), strict=True):
        assert not np.any(left == right)
    plain = {*some.records.ravel(), *(w for weights, _ in some.layers for w in weights.ravel())}
    for left, right in zip(first.channels, second.channels, strict=True):
        words, others = left.words(), right.words()
        assert len(words) == len(others) > 100
        assert sum(x == y for x, y in zip(words, others, strict=True)) < 5 + some.patients * 16  # one-bit openings
        assert not plain & {word for word in words if abs(word) > 1}


class Recorded(MemoryChannel):
    """Keeps the data frames that it sends."""

    def send(self, label: str, data: bytes) -> None:
        self.__dict__.setdefault("data", []).append(data)
        super().send(label, data)

    def words(self) -> list[int]:
        return np.frombuffer(b"".join(self.__dict__["data"]), dtype=np.int64).tolist()


def recorded() -> tuple[Recorded, Recorded]:
    forth: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    return Recorded("B", forth, back, 20.0), Recorded("A", back, forth, 20.0)


class Forbidden(Exception):
    """Not a RuntimeError, which CrypTen swallows in places."""


def forbid(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Forbidden(f"{name} was called")

    monkeypatch.setattr(owner, name, refuse)


def test_no_randomness_of_crypten_or_torch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = 0
    for module in [m for name, m in list(sys.modules.items()) if name.split(".")[0] == "crypten"]:
        for name in ("generate_random_ring_element", "generate_kbit_random_tensor"):
            if name in vars(module):
                forbid(monkeypatch, module, name)
                replaced += 1
    assert replaced >= 6
    for name in ("randint", "rand", "randn", "randperm", "bernoulli", "normal", "Generator", "default_generator"):
        forbid(monkeypatch, torch, name)
    for name in ("random_", "uniform_", "normal_", "bernoulli_", "exponential_", "geometric_"):
        forbid(monkeypatch, torch.Tensor, name)
    for name in ("random", "rand", "randint", "default_rng", "seed"):
        forbid(monkeypatch, np.random, name)
    some = case((7, 5, 3, 2), 5, random_draw)
    assert run(some).opened == some.expected()
    import crypten

    assert crypten.generators == {"prev": {}, "next": {}, "local": {}, "global": {}}


def test_a_run_opens_no_socket_and_unpickles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("socket", "socketpair", "create_connection", "create_server"):
        forbid(monkeypatch, socket, name)
    for name in ("loads", "load", "dumps", "dump", "Unpickler", "Pickler"):
        forbid(monkeypatch, pickle, name)
    forbid(monkeypatch, torch, "load")
    forbid(monkeypatch, torch, "save")
    for name in ("init_process_group", "new_group", "send", "recv", "isend", "irecv", "broadcast", "all_reduce"):
        forbid(monkeypatch, torch.distributed, name)
    some = case((7, 5, 3, 2), 2, random_draw)
    assert run(some).opened == some.expected()


def test_crypten_is_idle_outside_a_run() -> None:
    import crypten.communicator

    assert not crypten.communicator.is_initialized()
    with pytest.raises(RuntimeError, match="not initialized"):
        crypten.communicator.get()
    with pytest.raises(UsageError, match="outside a run"):
        crypten.mpc.get_default_provider().B2A_rng(torch.Size([3]))
    with pytest.raises(UsageError, match="outside a run"):
        backend.BinarySharedTensor.PRZS((3,))


def test_a_misspelt_setting_is_refused() -> None:
    for key in ("mpc.providre", "mpc", "mpc.provider.name", "encoder.precision"):
        before = backend.OmegaConf.to_yaml(backend.cfg.config)
        with pytest.raises(UsageError, match="setting"):
            backend._configure(key, "SEALPROOF_DEALER")
        assert backend.OmegaConf.to_yaml(backend.cfg.config) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("mpc.provider", "TFP"), ("mpc.active_security", True), ("encoder.precision_bits", 16), ("debug.debug_mode", 1)],
)
def test_a_setting_that_somebody_changed_ends_the_run_before_anything_is_sent(key: str, value: object) -> None:
    some = case((3, 2, 1), 1, random_draw)
    channels = memory_channels()
    with backend.cfg.temp_override({key: value}), pytest.raises(UsageError, match=key):
        run(some, channels)
    assert [channel.sent_bytes for channel in channels] == [0, 0]
    assert run(some).opened == some.expected()


@pytest.mark.parametrize("other_widths", [(3, 4, 1), (2, 2, 1)])
def test_a_peer_with_tensors_of_another_size_ends_the_session(other_widths: tuple[int, ...]) -> None:
    some, other = case((3, 2, 1), 2, random_draw), case(other_widths, 2, random_draw)
    A, B = memory_channels(timeout=1)
    left, right = (deal(ring_plan(c.shapes, 2)) for c in (some, other))
    with ThreadPoolExecutor(2) as threads:
        parties = [
            threads.submit(
                hidden_words, "A", some.shapes, 2, some.records, A,
                Correlations("A", ring_plan(some.shapes, 2), left[0]), bytes(32),
            ),
            threads.submit(
                hidden_words, "B", other.shapes, 2, other.layers, B,
                Correlations("B", ring_plan(other.shapes, 2), right[1]), bytes(32),
            ),
        ]  # fmt: skip
    assert {getattr(party.exception(), "check", None) for party in parties} <= {"mpc.frame", "mpc.stalled"}
    assert any(party.exception().check == "mpc.frame" for party in parties)


@pytest.mark.parametrize("at", range(10))
def test_a_frame_of_the_wrong_size_ends_the_session_wherever_it_comes(at: int) -> None:
    some = case((3, 2, 2, 1), 2, random_draw)
    A, B = memory_channels(timeout=1)
    honest, sent = B.send, 0

    def send(label: str, data: bytes) -> None:
        nonlocal sent
        honest(label, data[:-8] if sent == at else data)
        sent += 1

    B.send = send
    with pytest.raises(SessionBroken) as broken:
        run(some, (A, B))
    assert broken.value.check == "mpc.frame"


def test_a_peer_that_gives_up_or_stalls_ends_the_session() -> None:
    some = case((3, 2, 1), 1, random_draw)
    correlations = Correlations("A", ring_plan(some.shapes, 1), deal(ring_plan(some.shapes, 1))[0])
    A, B = memory_channels(timeout=0.2)
    B.abort("no more")
    with pytest.raises(SessionBroken, match="no more"):
        hidden_words("A", some.shapes, 1, some.records, A, correlations, bytes(32))
    correlations = Correlations("A", ring_plan(some.shapes, 1), deal(ring_plan(some.shapes, 1))[0])
    A, B = memory_channels(timeout=0.2)
    with pytest.raises(SessionBroken) as broken:
        hidden_words("A", some.shapes, 1, some.records, A, correlations, bytes(32))
    assert broken.value.check == "mpc.stalled"
    assert getattr(backend._RUNS, "current", None) is None


def test_a_failure_inside_crypten_ends_the_session_and_quotes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("value 123456789")

    monkeypatch.setattr(backend, "convert", fail)
    with pytest.raises(SessionBroken) as broken:
        run(case((3, 2, 1), 1, random_draw))
    assert broken.value.check == "mpc.crypten" and "123456789" not in str(broken.value)
    assert broken.value.__cause__ is None and broken.value.__suppress_context__


def test_randomness_of_another_plan_is_refused() -> None:
    with pytest.raises(UsageError, match="item 0"):
        run(case((3, 2, 1), 1, random_draw), memory_channels(timeout=1), plan=(ElementTriple(4),))


def test_wrong_calls_are_refused_before_anything_is_sent() -> None:
    some = case((3, 2, 1), 2, random_draw)
    plan = ring_plan(some.shapes, 2)
    A, _ = memory_channels()
    correlations = Correlations("A", plan, deal(plan)[0])

    def refused(match: str, role="A", shapes=some.shapes, patients=2, secret=some.records, key=bytes(32)) -> None:
        with pytest.raises(UsageError, match=match):
            hidden_words(role, shapes, patients, secret, A, correlations, key)

    refused("'C'", role="C")
    refused("nothing to compute", patients=0)
    refused("nothing to compute", shapes=[])
    refused("2 outputs but layer 1 has 3", shapes=[some.shapes[0], some.shapes[0]])
    refused("records: expected", secret=some.records[:1])
    refused("records: expected", secret=some.records.astype(np.float64))
    refused("records: expected", secret=some.records.astype(np.int32))
    refused("array of records", secret=some.layers)
    refused("32 bytes", key=bytes(16))
    (weights, bias), last = some.layers
    refused("weights and bias", role="B", secret=some.records)
    refused("weights and bias", role="B", secret=[])
    refused("weights of layer 0: expected", role="B", secret=[(weights.T, bias), last])
    refused("bias of layer 0: expected", role="B", secret=[(weights, bias[:1]), last])
    assert A.sent_bytes == 0 and correlations.left == len(plan)


def test_the_secrets_of_the_caller_are_left_as_they_were() -> None:
    some = case((3, 2, 2, 1), 2, random_draw)
    arrays = [some.records, *(array for layer in some.layers for array in layer)]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    run(some)
    assert all(np.array_equal(x, y) for x, y in zip(arrays, before, strict=True))


class SocketChannel(StreamChannel):
    """A blocking socket."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__("peer")
        self._connection = connection

    def _write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def _read(self, size: int) -> bytes:
        out = io.BytesIO()
        while out.tell() < size:
            part = self._connection.recv(size - out.tell())
            if not part:
                raise SessionBroken("mpc.closed", "gone")
            out.write(part)
        return out.getvalue()


def test_messages_larger_than_the_buffers_of_blocking_sockets_do_not_stall() -> None:
    some = case((30, 64, 1), 64, random_draw)
    left, right = socket.socketpair()
    with left, right:
        for end in (left, right):
            end.settimeout(20)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        outcome = run(some, (SocketChannel(left), SocketChannel(right)))
    assert outcome.opened == some.expected()


PARTY = """
import json, socket, sys
import numpy as np
from privacy.mpc.backend import hidden_words, ring_plan
from privacy.mpc.dealer import Correlations
from tests.mpc.test_backend import SocketChannel, shapes_of
widths, patients, secret, dealt, key = json.load(sys.stdin)
secret = [(np.array(w), np.array(b)) for w, b in secret]
shapes = shapes_of(widths)
channel = SocketChannel(socket.socket(fileno=int(sys.argv[1])))
words = hidden_words("B", shapes, patients, secret, channel,
                     Correlations("B", ring_plan(shapes, patients), bytes.fromhex(dealt)), bytes.fromhex(key))
json.dump([w.tolist() for w in words], sys.stdout)
"""


@pytest.mark.slow
def test_two_processes_compute_the_same() -> None:
    widths = (7, 5, 3, 2)
    some = case(widths, 3, random_draw)
    plan = ring_plan(some.shapes, 3)
    dealt = deal(plan)
    key = secrets.token_bytes(32)
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(60)
        command = [sys.executable, "-c", PARTY, str(right.fileno())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "pass_fds": [right.fileno()]}
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}, **pipes) as other:
            right.close()
            secret = [(weights.tolist(), bias.tolist()) for weights, bias in some.layers]
            other.stdin.write(json.dumps([widths, 3, secret, dealt[1].hex(), key.hex()]))
            other.stdin.close()
            correlations = Correlations("A", plan, dealt[0])
            mine = hidden_words("A", some.shapes, 3, some.records, SocketChannel(left), correlations, key)
            theirs = json.load(other.stdout)
        assert other.returncode == 0
    opened = [(x ^ np.array(y, dtype=np.uint64)).tolist() for x, y in zip(mine, theirs, strict=True)]
    assert opened == some.expected()


@pytest.mark.slow
def test_importing_leaves_no_stand_in_behind_and_warns_of_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "import privacy.mpc.backend\n"
        "sys.exit('torch.onnx.symbolic_registry' in sys.modules)"
    )
    # An empty cache: some warnings come only when a file is compiled.
    command = [sys.executable, "-X", f"pycache_prefix={tmp_path}", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_crypten_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "privacy.mpc.backend")
    monkeypatch.setattr("privacy.mpc.backend", backend, raising=False)
    monkeypatch.setitem(sys.modules, "crypten", None)
    with pytest.raises(MissingDependency, match="make setup"):
        __import__("privacy.mpc.backend")
    assert "torch.onnx.symbolic_registry" not in sys.modules
