"""What an owner's node has given away is counted from before it is sent until the ledger counts it, to the full."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from api.mpc.delivered import DeliveredStore
from api.registry import Registry
from privacy.errors import DecodeError, UsageError
from tests.support import joint_bundles
from tests.support.bundles import PATIENTS
from tests.support.joint_bundles import SESSION, JointStory, commit_cohort

OTHER = bytes([7] * 32)


@pytest.fixture
def story(tmp_path: Path) -> JointStory:
    """One prediction about five patients, proven and not logged."""
    return joint_bundles.tell(tmp_path, network="linear")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "delivered"


@pytest.fixture
def store(folder: Path) -> DeliveredStore:
    return DeliveredStore(folder)


def unpublished(store: DeliveredStore, story: JointStory) -> int:
    registry = Registry.read(story.world.log)
    return store.unpublished(registry, story.clinic.reference.leaf, story.model.reference.leaf)


def deliver(store: DeliveredStore, story: JointStory, session: bytes = SESSION, patients: int = 5) -> None:
    store.add(session, story.clinic.reference.leaf, story.model.reference.leaf, patients)


def test_what_was_delivered_counts_until_it_is_published(store: DeliveredStore, story: JointStory) -> None:
    assert unpublished(store, story) == 0
    deliver(store, story)
    deliver(store, story, OTHER, 64)
    assert unpublished(store, story) == 69
    story.log()
    assert unpublished(store, story) == 64


def test_a_session_counts_once_however_often_it_is_delivered(store: DeliveredStore, story: JointStory) -> None:
    for _ in range(3):
        deliver(store, story)
    assert unpublished(store, story) == 5


def test_other_clinics_and_other_networks_are_not_counted(store: DeliveredStore, story: JointStory) -> None:
    store.add(SESSION, OTHER, story.model.reference.leaf, 5)
    store.add(OTHER, story.clinic.reference.leaf, OTHER, 5)
    assert unpublished(store, story) == 0


def test_the_count_survives_the_process(store: DeliveredStore, story: JointStory, folder: Path) -> None:
    deliver(store, story)
    assert unpublished(DeliveredStore(folder), story) == 5


def test_a_session_is_counted_on_disk_before_add_returns(
    store: DeliveredStore, story: JointStory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    deliver(store, story)
    assert folder in synced
    assert len(synced) == 2


def test_folder_and_files_are_private(store: DeliveredStore, story: JointStory, folder: Path) -> None:
    deliver(store, story)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]
    folder.chmod(0o755)
    with pytest.raises(UsageError, match="accessible to others"):
        DeliveredStore(folder)


@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage", b'{"clinic":1}'])
def test_a_damaged_record_is_not_passed_over(
    store: DeliveredStore, story: JointStory, folder: Path, damage: bytes
) -> None:
    """What cannot be counted might be anything: nothing more is delivered until somebody has looked."""
    deliver(store, story)
    (path,) = folder.iterdir()
    path.write_bytes(damage)
    with pytest.raises(DecodeError, match="delivered session"):
        unpublished(store, story)


@pytest.mark.parametrize("patients", [0, -1])
def test_a_session_about_nobody_cannot_be_counted(store: DeliveredStore, story: JointStory, patients: int) -> None:
    with pytest.raises(UsageError):
        deliver(store, story, patients=patients)


# -- who signs for the log may log something less ---------------------------------------------------------------------


def log_instead(story: JointStory, told: JointStory) -> None:
    """The server logs the session as one about other entries. It needs no proofs for that: entries alone are read."""
    body = told.predicted.body
    size, root = story.world.head
    story.world.append(story.server, replace(body, session=SESSION, checkpoint_size=size, checkpoint_root=root))


def test_a_session_logged_about_fewer_patients_counts_in_full(store: DeliveredStore, story: JointStory) -> None:
    deliver(store, story)
    few = commit_cohort(PATIENTS[:1])
    records = story.world.append(story.clinic, few.body())
    less = replace(story, cohort=few, records=records)
    log_instead(story, replace(less, predicted=less.predict()))
    assert unpublished(store, story) == 5


def test_a_session_logged_about_another_network_counts_in_full(store: DeliveredStore, story: JointStory) -> None:
    deliver(store, story)
    toy = joint_bundles.network_material("linear", "2")
    other = replace(story, network=toy, model=story.world.append(story.owner, toy.body()))
    log_instead(story, replace(other, predicted=other.predict()))
    assert unpublished(store, story) == 5


def test_a_session_logged_about_another_clinic_counts_in_full(store: DeliveredStore, story: JointStory) -> None:
    deliver(store, story)
    stranger = story.world.register("clinic", "st-bruno")
    theirs = commit_cohort(PATIENTS, "st-bruno")
    other = replace(story, clinic=stranger, cohort=theirs, records=story.world.append(stranger, theirs.body()))
    log_instead(story, replace(other, predicted=other.predict()))
    assert unpublished(store, story) == 5
