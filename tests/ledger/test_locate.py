"""Where a log lies, in one line: every spelling means one place or is refused, and no password is ever repeated."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger import LogLocked, Signer, StorageError, UsageError, VerificationFailed
from ledger.storage.locate import LogPlace, open_or_create
from ledger.storage.postgres_address import PostgresAddress
from tests.support.postgres import TestServer

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("sqlite", "tiles", "postgresql")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LogPlace:
    if request.param == "postgresql":
        server: TestServer = request.getfixturevalue("postgres")
        address = server.address()
        return LogPlace.parse(f"{address.conninfo}&schema={address.schema}")
    return LogPlace.parse(f"{request.param}:{tmp_path / 'the log'}")


class TestText:
    @pytest.mark.parametrize(
        ("text", "kind", "shown"),
        [
            ("sqlite:/var/lib/x/ledger.sqlite", "sqlite", "sqlite:/var/lib/x/ledger.sqlite"),
            ("sqlite:relative.db", "sqlite", "sqlite:relative.db"),
            ("sqlite:a:b c", "sqlite", "sqlite:a:b c"),
            ("tiles:/srv/log", "tiles", "tiles:/srv/log"),
            ("postgresql://db.example/ledger", "postgresql", "postgresql://db.example/ledger?schema=sealproof"),
            (
                "postgres://u:p%40ss@db.example:5433/ledger?sslmode=verify-full&schema=hospital_a",
                "postgresql",
                "postgresql://u:***@db.example:5433/ledger?sslmode=verify-full&schema=hospital_a",
            ),
            ("postgresql://u@h1:1,h2:2/db", "postgresql", "postgresql://u@h1:1,h2:2/db?schema=sealproof"),
            (
                "postgresql://u@[2001:db8::1]:5432/db",
                "postgresql",
                "postgresql://u@[2001:db8::1]:5432/db?schema=sealproof",
            ),
            ("postgresql:///db?host=/run/pg", "postgresql", "postgresql:///db?host=/run/pg&schema=sealproof"),
        ],
        ids=str,
    )
    def test_what_is_understood(self, text: str, kind: str, shown: str) -> None:
        place = LogPlace.parse(text)
        assert (place.kind, str(place)) == (kind, shown)
        assert LogPlace.parse(text) == place
        assert pickle.loads(pickle.dumps(place)) == place

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ledger.sqlite",
            "/var/lib/ledger.sqlite",
            "sqlite:",
            "tiles:",
            "tiles:a\0b",
            "SQLITE:x",
            "mysql://u:hunter2@h/db",
            "file:x",
            "postgresql:",
            "postgresql:x",
            "postgresql://u:hunter2@x@h/db",
            "postgresql://u:hunter2/x@h/db",
            "postgresql://u:hunter2?x@h/db",
            "postgresql://u:hunter2#x@h/db",
            "postgresql://u:hunter2 x@h/db",
            "postgresql://u:hunter2%zz@h/db",
            "postgresql://u:hunter2%00@h/db",
            "postgresql://u:hunter2%ff@h/db",
            "postgresql://u:hunter2:x@h/db",
            "postgresql://u:hunter2@h:port/db",
            "postgresql://u:hunter2@h:543211/db",
            "postgresql://u:hunter2@h/db/more",
            "postgresql://u:hunter2@h/db?schema",
            "postgresql://u:hunter2@h/db?schema=",
            "postgresql://u:hunter2@h/db?schema=Upper",
            "postgresql://u:hunter2@h/db?schema=a%22b",
            "postgresql://u:hunter2@h/db?schema=a;drop",
            "postgresql://u:hunter2@h/db?a=1?b=2",
            "postgresql://u:1?schema=hunter2@h/db",
            "postgresql://u:1?a=hunter2@h/db",
            "postgresql://u:1/hunter2@h/db",
            "postgresql://u@h/db?password=hunter2",
            "postgresql://u@h/db?sslpassword=hunter2",
            "postgresql://u@h/db?sslmode=disable&password=hunter2",
            "postgresql://u:hunter2@h/db\n",
            "postgresql://ü:hunter2@h/db",
        ],
        ids=repr,
    )
    def test_what_is_refused_without_repeating_a_password(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            LogPlace.parse(text)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    @given(st.text(), st.text(), st.sampled_from(["postgresql", "postgres", "mysql", ""]))
    @example("@", "/", "postgresql")
    @example(":", "%", "postgresql")
    def test_no_text_makes_it_repeat_a_password(self, before: str, after: str, kind: str) -> None:
        text = f"{kind}://{before}:qX7secretZ{after}@host/db"
        try:
            place = LogPlace.parse(text)
        except UsageError as error:
            assert "qX7secretZ" not in str(error)
        else:
            assert "qX7secretZ" not in f"{place} {place!r} {place.where!r}"

    def test_messages_are_cleaned_of_both_spellings(self) -> None:
        address = PostgresAddress.parse("postgresql://u:a%2Fb@h/db")
        assert address.hide("for a/b and a%2Fb") == "for *** and ***"
        assert PostgresAddress.parse("postgresql://u@h/db").hide("a/b") == "a/b"


class TestPlaces:
    def test_a_log_is_made_once_and_then_opened(self, place: LogPlace, signer: Signer) -> None:
        assert not place.exists()
        with open_or_create(place, signer) as log:
            log.append(b"one")
            assert place.exists()
        with open_or_create(place, signer) as log:
            assert list(log.entries()) == [b"one"]
        storage = place.open_readonly()
        assert storage.extent() == (1, 1)
        storage.close()

    def test_what_is_not_there_is_not_opened(self, place: LogPlace) -> None:
        for call in (place.open, place.open_readonly):
            with pytest.raises(UsageError, match="no log"):
                call()
        assert not place.exists()

    def test_nothing_is_created_over_a_log(self, place: LogPlace, head_note: Callable[..., bytes]) -> None:
        place.create(head_note([])).close()
        with pytest.raises(UsageError, match="exists already"):
            place.create(head_note([]))

    def test_a_second_writer(self, place: LogPlace, signer: Signer) -> None:
        with open_or_create(place, signer) as log:
            if place.kind == "postgresql":
                with open_or_create(place, signer) as second:
                    assert second.append(b"x").index == 0
                assert log.size == 1
            else:
                with pytest.raises(LogLocked):
                    open_or_create(place, signer)

    def test_a_log_of_another_key_is_neither_opened_nor_replaced(self, place: LogPlace, signer: Signer) -> None:
        with open_or_create(place, signer) as log:
            log.append(b"x")
        with pytest.raises(VerificationFailed):
            open_or_create(place, Signer(signer.name, bytes(32)))
        with open_or_create(place, signer) as log:
            assert log.size == 1

    def test_the_quicker_of_two_creators_wins(
        self, place: LogPlace, signer: Signer, head_note: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one opens what it finds."""
        exists = LogPlace.exists
        answers = iter([False])

        def late(self: LogPlace) -> bool:
            if (answer := next(answers, None)) is not None:
                self.create(head_note([])).close()
                return answer
            return exists(self)

        monkeypatch.setattr(LogPlace, "exists", late)
        with open_or_create(place, signer) as log:
            assert log.append(b"x").index == 0

    def test_something_else_is_left_alone(self, tmp_path: Path, signer: Signer) -> None:
        foreign = tmp_path / "foreign"
        foreign.write_bytes(b"not a database, but long enough to look at it " * 50)
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "mine").write_text("mine")
        for place in (LogPlace("sqlite", foreign), LogPlace("tiles", folder)):
            with pytest.raises((UsageError, StorageError)):
                open_or_create(place, signer)
        assert foreign.read_bytes().startswith(b"not a database")
        assert [path.name for path in folder.iterdir()] == ["mine"]

    @pytest.mark.parametrize("left", ["empty file", "database without tables"])
    def test_an_interrupted_creation_is_finished(self, tmp_path: Path, signer: Signer, left: str) -> None:
        place = LogPlace("sqlite", tmp_path / "log.db")
        assert isinstance(place.where, Path)
        if left == "empty file":
            place.where.touch()
        else:
            connection = sqlite3.connect(place.where)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            assert place.where.stat().st_size > 0
        assert not place.exists()
        with open_or_create(place, signer) as log:
            assert log.append(b"x").index == 0


def test_without_the_driver_only_postgresql_is_out_of_reach(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from pathlib import Path
from ledger import MissingDependency, Signer
from ledger.storage.locate import LogPlace, open_or_create

signer = Signer("ledger.example/test", bytes(32))
for kind in ("sqlite", "tiles"):
    open_or_create(LogPlace.parse(f"{kind}:{Path(sys.argv[1]) / kind}"), signer).close()
place = LogPlace.parse("postgresql://u:hunter2@h/db")
for call in (place.exists, place.open, place.open_readonly, lambda: place.create(b"")):
    try:
        call()
    except MissingDependency as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    expected = "psycopg is not installed. Install it with: pip install 'sealproof[postgres]'\n"
    assert (result.stdout, result.stderr) == (expected * 4, "")
