"""Fixtures for tests of whole bundles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundles, joint_bundles
from tests.support.anvil import anvil, chain  # noqa: F401  (fixtures)
from tests.support.postgres import postgres  # noqa: F401  (fixture)
from tests.support.service import RunningServer, running


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> bundles.Story:
    """An honest prediction, proven and not yet logged: five patients, three features, one ciphertext."""
    return bundles.tell(tmp_path_factory.mktemp("story"))


@pytest.fixture(scope="session")
def honest_bundle(story: bundles.Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that verifies. Tests must not change the file."""
    return story.bundle(tmp_path_factory.mktemp("bundle") / "honest.sealproof")


@pytest.fixture(scope="session")
def joint_story(tmp_path_factory: pytest.TempPathFactory) -> joint_bundles.JointStory:
    """An honest joint prediction, proven and not yet logged: five patients, three features, two hidden neurons."""
    return joint_bundles.tell(tmp_path_factory.mktemp("joint-story"))


@pytest.fixture(scope="session")
def joint_bundle(joint_story: joint_bundles.JointStory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of multi-party computation that verifies. Tests must not change the file."""
    return joint_story.bundle(tmp_path_factory.mktemp("joint-bundle") / "honest.sealproof")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The real service in this process, reached through starlette's test client."""
    with running(tmp_path_factory.mktemp("server") / "data") as found:
        yield found
