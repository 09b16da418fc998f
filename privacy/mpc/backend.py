"""The adapter to CrypTen, the only file that imports crypten (docs/spec/protocol.md, section 7).

CrypTen computes the hidden layers of a network in exact integers modulo 2^64 and leaves each party with its XOR share
of every bit of every hidden pre-activation. Only its arithmetic and its circuits are used. What is insecure by default
in it is replaced here:

    correlated randomness    dealt (`privacy.mpc.dealer.Correlations`), not from torch's Mersenne Twister at rank 0
    sharings of zero         AES under a key common to the parties, not torch generators with seeds of 63 bits
    communication            raw integers of known sizes over `privacy.mpc.channel.Channel`, not gloo and pickle
    configuration            written and read back, again before every run: CrypTen takes keys that do not exist

CrypTen finds all four through module globals. The ones installed here look up the run of the calling thread, so two
parties can run in two threads of one process. Importing this module without crypten raises MissingDependency.
"""

from __future__ import annotations

import sys
import threading
import types
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MissingDependency, SessionBroken, UsageError
from privacy.models.network_quantise import LayerShape
from privacy.mpc.channel import Channel
from privacy.mpc.dealer import (
    BinaryTriple,
    BitShares,
    Correlations,
    ElementTriple,
    MatrixTriple,
    PlanItem,
    Role,
)
from privacy.zk.randomness import SecretStream

_REMOVED_MODULE: Final = "torch.onnx.symbolic_registry"
_STAND_IN: Final = types.ModuleType(_REMOVED_MODULE)
try:
    # CrypTen's ONNX converter, which is not used here, imports a module that torch no longer has.
    sys.modules.setdefault(_REMOVED_MODULE, _STAND_IN)
    with warnings.catch_warnings():
        # A docstring of crypten.nn holds an escape that Python warns about whenever it compiles the file.
        warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
        warnings.filterwarnings("ignore", "invalid escape sequence", SyntaxWarning)
        import crypten
        import crypten.communicator
        import torch
        from crypten.config import cfg
        from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor
        from crypten.mpc.primitives.converters import convert
        from crypten.mpc.provider.provider import TupleProvider
        from crypten.mpc.ptype import ptype
        from omegaconf import OmegaConf
except ImportError as error:
    raise MissingDependency("crypten", "mpc", how="make setup, in a checkout") from error
finally:
    if sys.modules.get(_REMOVED_MODULE) is _STAND_IN:
        del sys.modules[_REMOVED_MODULE]

__all__ = ["Inputs", "LayerWeights", "hidden_words", "ring_plan"]

Integers: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]

LayerWeights: TypeAlias = tuple[Integers, Integers]
"""Weights (outputs, inputs) and bias (outputs,) of a layer, at the scales of `privacy.models.network_quantise`."""

Inputs: TypeAlias = Integers | Sequence[LayerWeights]
"""A's records (patients, d), or B's layers; layers after the last hidden one are not looked at."""

_WORD: Final = np.dtype("<i8")
_WORD_BITS: Final = 64
_ADDER_ROUNDS: Final = 6
"""Rounds of CrypTen's 64-bit carry circuit, log2(64)."""

_PROVIDER: Final = "SEALPROOF_DEALER"
_CONFIGURATION: Final[tuple[tuple[str, str | int | bool], ...]] = (
    ("mpc.provider", _PROVIDER),
    ("mpc.protocol", "beaver"),
    ("mpc.active_security", False),
    ("encoder.precision_bits", 0),
    ("communicator.verbose", False),
    ("debug.debug_mode", False),
    ("debug.validation_mode", False),
)
_RUNS: Final = threading.local()


class Ring:
    """One party's CrypTen run over one batch, current in its thread while it is entered.

    Args:
        role: "A" or "B", ranks 0 and 1.
        channel: to the other party.
        correlations: this party's dealt randomness.
        key: 32 bytes that both parties know and nobody else does, fresh for every run.

    Raises:
        UsageError: the key does not have 32 bytes.
    """

    def __init__(self, role: Role, channel: Channel, correlations: Correlations, key: bytes) -> None:
        self.rank = 0 if role == "A" else 1
        self.channel = channel
        self.correlations = correlations
        self._zeros = SecretStream(key)
        self._secret = SecretStream()
        self._exchanges = 0

    def __enter__(self) -> Ring:
        if getattr(_RUNS, "current", None) is not None:
            raise UsageError("this thread is in another run already")
        _RUNS.current = self
        return self

    def __exit__(self, *_: object) -> None:
        _RUNS.current = None

    @staticmethod
    def current() -> Ring:
        """The run of this thread. Raises UsageError outside one."""
        found: Ring | None = getattr(_RUNS, "current", None)
        if found is None:
            raise UsageError("CrypTen was called outside a run")
        return found

    def exchange(self, words: Integers) -> Integers:
        """The other party's array of the same shape as `words`, which it is sent. Raises SessionBroken."""
        label = f"ring.{self._exchanges}"
        self._exchanges += 1
        data = words.astype(_WORD, copy=False).tobytes()
        # One sends first and the other receives first: both sending could fill both directions' buffers and stall.
        if self.rank == 0:
            self.channel.send(label, data)
            return _from_bytes(self.channel.receive(label, len(data)), words.shape)
        received = self.channel.receive(label, len(data))
        self.channel.send(label, data)
        return _from_bytes(received, words.shape)

    def zero_words(self, size: Sequence[int]) -> Integers:
        """Uniform words that both parties draw alike."""
        return _drawn(self._zeros, size)

    def shared(self, owner: Role, values: Integers | None, shape: tuple[int, ...]) -> Any:
        """An ArithmeticSharedTensor of the owner's secret; the other party gives None and is sent its share."""
        label = f"ring.input.{owner}"
        if values is None:
            share = _from_bytes(self.channel.receive(label, _WORD.itemsize * int(np.prod(shape))), shape)
        else:
            mask = _drawn(self._secret, shape)
            self.channel.send(label, mask.astype(_WORD, copy=False).tobytes())
            share = values - mask
        return ArithmeticSharedTensor.from_shares(torch.from_numpy(share), precision=0)


def _from_bytes(data: bytes, shape: tuple[int, ...]) -> Integers:
    return np.frombuffer(data, dtype=_WORD).astype(np.int64).reshape(shape)


def _drawn(stream: SecretStream, size: Sequence[int]) -> Integers:
    return _from_bytes(stream.bytes(_WORD.itemsize * int(np.prod(size))), tuple(size))


def ring_plan(shapes: Sequence[LayerShape], patients: int) -> tuple[PlanItem, ...]:
    """What `hidden_words` asks of the dealer, item by item. Empty for a network of one layer.

    Raises:
        UsageError: no layers, layers that do not chain, or no patients.
    """
    _check_shapes(shapes, patients)
    plan: list[PlanItem] = []
    hidden = shapes[:-1]
    for place, shape in enumerate(hidden):
        words = patients * shape.outputs
        plan.append(MatrixTriple(patients, shape.inputs, shape.outputs))
        # CrypTen adds the parties' shares of h bit by bit: generate, then propagate and generate in one AND a round.
        plan += [BinaryTriple(words), *[BinaryTriple(2 * words)] * _ADDER_ROUNDS]
        if place + 1 < len(hidden):
            plan += [BitShares(words), ElementTriple(words)]
    return tuple(plan)


def hidden_words(
    role: Role,
    shapes: Sequence[LayerShape],
    patients: int,
    secret: Inputs,
    channel: Channel,
    correlations: Correlations,
    key: bytes,
) -> list[Words]:
    """This party's XOR shares of the hidden pre-activations' bits; both parties call it with the same public arguments.

    h_1 = W_1 x + b_1 and h_(l+1) = W_(l+1) max(h_l, 0) + b_(l+1) modulo 2^64, in two's complement: the integers
    themselves if all bounds of `privacy.models.network_quantise.check_bounds` hold, which is for the caller to check.
    Against semi-honest parties: nothing proves here that the other one follows the protocol.

    Args:
        role: "A", who holds records, or "B", who holds weights.
        shapes: every layer of the network, the last one included.
        patients: size of the batch.
        secret: A's records (patients, d) or B's layers, int64.
        channel: to the other party.
        correlations: this party's dealt randomness, `ring_plan(shapes, patients)` being the next items of its plan.
        key: 32 bytes common to the parties and secret from the dealer, fresh for every call.

    Returns:
        uint64 (patients, outputs) for every hidden layer.

    Raises:
        UsageError: shapes that do not chain, secrets of another shape, randomness of another plan.
        SessionBroken: the other party sent something else than the protocol's next message, or nothing; CrypTen failed.
    """
    plan = ring_plan(shapes, patients)
    if role not in ("A", "B"):
        raise UsageError(f"a party is 'A' or 'B', not {role!r}")
    records, layers = _checked_secret(role, shapes, patients, secret)
    ring = Ring(role, channel, correlations, key)
    if not plan:
        return []
    _check_configuration()
    try:
        with ring:
            return _hidden_words(ring, shapes, patients, records, layers)
    except RuntimeError as error:
        # All that torch and CrypTen raise by themselves. Only the kind is passed on: texts may quote values.
        raise SessionBroken("mpc.crypten", f"CrypTen failed with {type(error).__name__}") from None


def _hidden_words(
    ring: Ring,
    shapes: Sequence[LayerShape],
    patients: int,
    records: Integers | None,
    layers: Sequence[LayerWeights] | None,
) -> list[Words]:
    hidden = shapes[:-1]
    activations = ring.shared("A", records, (patients, shapes[0].inputs))
    words = []
    for place, shape in enumerate(hidden):
        weights, bias = (None, None) if layers is None else layers[place]
        columns = None if weights is None else np.ascontiguousarray(weights.T)
        sums = activations.matmul(ring.shared("B", columns, (shape.inputs, shape.outputs)))
        if bias is not None:
            sums.share += torch.from_numpy(bias)  # B's alone: its own share is where it is added
        bits = convert(sums, ptype.binary)
        words.append(bits.share.numpy().astype(np.int64).view(np.uint64))
        if place + 1 < len(hidden):
            signs = bits.clone()
            signs.share >>= _WORD_BITS - 1
            activations = sums - sums.mul(convert(signs, ptype.arithmetic, precision=0, bits=1))
    return words


def _check_shapes(shapes: Sequence[LayerShape], patients: int) -> None:
    if not shapes or patients < 1:
        raise UsageError(f"{len(shapes)} layers and {patients} patients: there is nothing to compute")
    for place, (left, right) in enumerate(pairwise(shapes)):
        if left.outputs != right.inputs:
            raise UsageError(
                f"layer {place} has {left.outputs} outputs but layer {place + 1} has {right.inputs} inputs"
            )


def _checked_secret(
    role: Role, shapes: Sequence[LayerShape], patients: int, secret: Inputs
) -> tuple[Integers | None, list[LayerWeights] | None]:
    if role == "A":
        if not isinstance(secret, np.ndarray):
            raise UsageError("A's secret is an array of records")
        return _integers("records", secret, (patients, shapes[0].inputs)), None
    if isinstance(secret, np.ndarray) or not len(shapes) - 1 <= len(secret) <= len(shapes):
        raise UsageError(f"B's secret is weights and bias of each of the {len(shapes) - 1} hidden layers")
    layers = []
    for place, (shape, (weights, bias)) in enumerate(zip(shapes[:-1], secret, strict=False)):
        checked = _integers(f"weights of layer {place}", weights, (shape.outputs, shape.inputs))
        layers.append((checked, _integers(f"bias of layer {place}", bias, (shape.outputs,))))
    return None, layers


def _integers(what: str, array: NDArray[Any], shape: tuple[int, ...]) -> Integers:
    """A copy that torch may write to. Raises UsageError."""
    if array.dtype != np.int64 or array.shape != shape:
        raise UsageError(f"{what}: expected int64 {shape}, got {array.dtype} {array.shape}")
    return np.array(array, dtype=np.int64, order="C")


class _Link(crypten.communicator.Communicator):  # type: ignore[misc]
    """The communicator that CrypTen finds: that of this thread's run. Sums and XORs of both shares, nothing else."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    @classmethod
    def is_initialized(cls) -> bool:
        return getattr(_RUNS, "current", None) is not None

    @classmethod
    def get(cls) -> _Link:
        return cls(Ring.current())

    def get_world_size(self) -> int:
        return 2

    def get_rank(self) -> int:
        return self._ring.rank

    def all_reduce(self, input: Any, op: Any = torch.distributed.ReduceOp.SUM, batched: bool = False) -> Any:
        """Both parties' sum or XOR, of one tensor or of a list of them in one message each way."""
        if op not in (torch.distributed.ReduceOp.SUM, torch.distributed.ReduceOp.BXOR):
            raise UsageError(f"shares are summed or XORed, not combined by {op}")
        tensors = list(input) if batched else [input]
        mine = np.concatenate([tensor.numpy().reshape(-1) for tensor in tensors])
        theirs = self._ring.exchange(mine)
        both = mine ^ theirs if op == torch.distributed.ReduceOp.BXOR else mine + theirs
        parts = np.split(both, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
        results = [torch.from_numpy(part).view(tensor.size()) for part, tensor in zip(parts, tensors, strict=True)]
        return results if batched else results[0]


class _Provider(TupleProvider):  # type: ignore[misc]
    """The provider that CrypTen finds: dealt randomness of this thread's run."""

    def generate_additive_triple(self, size0: Any, size1: Any, op: str, device: Any = None) -> tuple[Any, Any, Any]:
        """Shares of a, b and c, the product of a and b."""
        correlations = Ring.current().correlations
        if op == "matmul":
            triple = correlations.matrix_triple(size0[0], size0[1], size1[1])
            return tuple(_arithmetic(words, words.shape) for words in triple)
        if op != "mul" or size0 != size1:
            raise UsageError(f"no triples for {op} of {tuple(size0)} and {tuple(size1)}")
        return tuple(_arithmetic(words, size0) for words in correlations.element_triple(size0.numel()))

    def generate_binary_triple(self, size0: Any, size1: Any, device: Any = None) -> tuple[Any, Any, Any]:
        """XOR shares of a, b and c = a & b."""
        if size0 != size1:
            raise UsageError(f"no triples for AND of {tuple(size0)} and {tuple(size1)}")
        return tuple(_binary(words, size0) for words in Ring.current().correlations.binary_triple(size0.numel()))

    def B2A_rng(self, size: Any, device: Any = None) -> tuple[Any, Any]:  # noqa: N802 CrypTen's name
        """Arithmetic and XOR shares of uniform bits."""
        words, bits = Ring.current().correlations.bit_shares(size.numel())
        return _arithmetic(words, size), _binary(bits, size)


def _tensor(words: Words, size: Sequence[int]) -> Any:
    return torch.from_numpy(words.view(np.int64).reshape(tuple(size)))


def _arithmetic(words: Words, size: Sequence[int]) -> Any:
    return ArithmeticSharedTensor.from_shares(_tensor(words, size), precision=0)


def _binary(words: Words, size: Sequence[int]) -> Any:
    return BinarySharedTensor.from_shares(_tensor(words, size), precision=0)


def _arithmetic_zeros(*size: Any, device: Any = None) -> Any:
    ring, shape = Ring.current(), torch.Size(*size)
    zeros = ring.zero_words(shape)
    return ArithmeticSharedTensor.from_shares(torch.from_numpy(zeros if ring.rank == 0 else -zeros), precision=0)


def _binary_zeros(*size: Any, device: Any = None) -> Any:
    return BinarySharedTensor.from_shares(torch.from_numpy(Ring.current().zero_words(torch.Size(*size))), precision=0)


def _configure(key: str, value: str | int | bool) -> None:
    """Set a configuration value that exists. Raises UsageError: CrypTen itself accepts any key."""
    if not isinstance(OmegaConf.select(cfg.config, key, default=None), str | int | bool):
        raise UsageError(f"CrypTen has no setting {key!r}")
    cfg[key] = value


def _check_configuration() -> None:
    """Raises UsageError if CrypTen's settings are no longer those of this module."""
    for key, value in _CONFIGURATION:
        found = OmegaConf.select(cfg.config, key, default=None)
        if type(found) is not type(value) or found != value:
            raise UsageError(f"CrypTen's setting {key} is {found!r} instead of {value!r}: somebody changed it")


def _install() -> None:
    vars(crypten.mpc)["__SUPPORTED_PROVIDERS"][_PROVIDER] = _Provider()
    crypten.communicator.DistributedCommunicator = _Link
    ArithmeticSharedTensor.PRZS = staticmethod(_arithmetic_zeros)
    BinarySharedTensor.PRZS = staticmethod(_binary_zeros)
    for key, value in _CONFIGURATION:
        _configure(key, value)
    _check_configuration()


_install()
