"""Secret randomness: an AES-256-CTR stream keyed from the operating system.

Everything that hides something is drawn here (or from `secrets`), never from NumPy's or torch's generators.
"""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.errors import UsageError
from privacy.zk.group import ORDER

__all__ = ["SecretStream", "expand", "random_scalar"]

Int64Array = npt.NDArray[np.int64]


def expand(key: bytes, length: int) -> bytes:
    """`length` bytes of the AES-256-CTR key stream under `key`, counter from zero."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return encryptor.update(bytes(length))


def random_scalar() -> int:
    """Uniform in [0, r)."""
    return secrets.randbelow(ORDER)


class SecretStream:
    """Fast secret randomness for arrays; each instance has its own 256-bit key, from `os.urandom` unless it is given.

    A given key, 32 secret bytes that nothing else is keyed with, makes a stream that all its holders expand alike.

    Raises:
        UsageError: the key does not have 32 bytes.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is None:
            key = secrets.token_bytes(32)
        elif len(key) != 32:
            raise UsageError(f"SecretStream: a key has 32 bytes, not {len(key)}")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def bytes(self, length: int) -> bytes:
        """Next `length` bytes."""
        return self._encryptor.update(bytes(length))

    def ternary(self, count: int) -> Int64Array:
        """Uniform in {-1, 0, 1}, by rejection from bytes below 255."""
        out = np.empty(0, dtype=np.int64)
        while out.size < count:
            raw = np.frombuffer(self.bytes(count - out.size + count // 64 + 64), dtype=np.uint8)
            out = np.concatenate([out, raw[raw < 255].astype(np.int64) % 3 - 1])
        return out[:count]

    def centred_binomial(self, count: int, pairs: int = 21) -> Int64Array:
        """Difference of two sums of `pairs` fair bits: |x| <= pairs, variance pairs/2."""
        bits = np.unpackbits(np.frombuffer(self.bytes(count * (-(-2 * pairs // 8))), dtype=np.uint8))
        rows = bits.reshape(count, -1)[:, : 2 * pairs].astype(np.int64)
        difference: Int64Array = rows[:, :pairs].sum(axis=1) - rows[:, pairs:].sum(axis=1)
        return difference

    def symmetric(self, count: int, bound: int) -> Int64Array:
        """Uniform in [-bound, bound] for 0 <= bound < 2^61, by rejection: no modulo bias."""
        if not 0 <= bound < 1 << 61:
            raise UsageError(f"symmetric: the bound {bound} is not in [0, 2^61)")
        span = 2 * bound + 1
        mask = (1 << span.bit_length()) - 1
        out = np.empty(0, dtype=np.int64)
        while out.size < count:
            raw = np.frombuffer(self.bytes(16 * (count - out.size) + 64), dtype=np.uint64) & np.uint64(mask)
            out = np.concatenate([out, raw[raw < np.uint64(span)].astype(np.int64) - bound])
        return out[:count]

    def integers(self, count: int, bits: int) -> list[int]:
        """`count` integers uniform in [0, 2^bits); `bits` a multiple of 8."""
        if bits % 8:
            raise UsageError(f"integers: {bits} bits are not whole bytes")
        width = bits // 8
        data = self.bytes(count * width)
        return [int.from_bytes(data[i : i + width], "little") for i in range(0, count * width, width)]

    def scalars(self, count: int) -> list[int]:
        """Uniform in [0, r), by rejection from 255 bits."""
        out: list[int] = []
        while len(out) < count:
            data = self.bytes(32 * (2 * (count - len(out)) + 8))
            candidates = (int.from_bytes(data[i : i + 32], "little") >> 1 for i in range(0, len(data), 32))
            out.extend(c for c in candidates if c < ORDER)
        return out[:count]

    def below(self, bound: int) -> int:
        """Uniform in [0, bound)."""
        return secrets.randbelow(bound)
