"""The consistency proof that a bundle carries: one text for one proof."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.consistency import ConsistencyProof
from ledger import DecodeError

PROOF = ConsistencyProof(3, 7, (bytes(32), b"\x01" * 32))
TEXT = PROOF.format()


def test_the_text() -> None:
    zeros, ones = "A" * 43 + "=", "AQEB" * 10 + "AQE="
    assert TEXT.decode() == f"sealproof/consistency/v1\nold 3\nnew 7\n{zeros}\n{ones}\n"
    assert ConsistencyProof.parse(TEXT) == PROOF
    assert ConsistencyProof.parse(b"sealproof/consistency/v1\nold 0\nnew 0\n") == ConsistencyProof(0, 0, ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TEXT[:-1],
        TEXT + b"\n",
        TEXT.replace(b"v1", b"v2"),
        TEXT.replace(b"old 3", b"old 03"),
        TEXT.replace(b"old 3", b"old  3"),
        TEXT.replace(b"old 3\nnew 7", b"new 7\nold 3"),
        TEXT.replace(b"old 3", b"old -3"),
        TEXT.replace(b"new 7", b"new 9223372036854775808"),
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"A=\n", b"B=\n"),
        TEXT.replace(b"A=\n", b"\n"),
        TEXT + b"AAAA\n",
        TEXT + (b"A" * 43 + b"=\n") * 63,
        TEXT.replace(b"old", b"\xffld"),
    ],
)
def test_any_other_text_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        ConsistencyProof.parse(data)


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda tail: TEXT[:40] + tail))
def test_the_decoder_is_total(data: bytes) -> None:
    try:
        proof = ConsistencyProof.parse(data)
    except DecodeError:
        return
    assert proof.format() == data
