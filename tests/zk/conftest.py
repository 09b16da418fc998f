"""Fixtures of the proof toolkit's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from privacy.zk import generators
from privacy.zk.group import ARKWORKS, REFERENCE, Group


@pytest.fixture(params=[ARKWORKS, REFERENCE], ids=lambda group: group.name)
def group(request: pytest.FixtureRequest) -> Group:
    """Both implementations of the curve."""
    return request.param


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch) -> Iterator:
    """An empty generator cache of small chunks; gives its folder and a function that forgets what was loaded."""

    def forget() -> None:
        generators._chunk.cache_clear()
        generators._blinding.cache_clear()

    monkeypatch.setenv("SEALPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(generators, "_CHUNK", 8)
    forget()
    yield tmp_path / "cache" / "generators-v1", forget
    forget()
