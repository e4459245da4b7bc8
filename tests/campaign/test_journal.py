import errno
import fcntl
import math
import sqlite3
from pathlib import Path

import pytest

from opengnome.campaign.events import Calculated, RoundClosed, RoundOpened
from opengnome.campaign.journal import (
    FORMAT_VERSION,
    Journal,
    LaterFormatError,
    held,
    is_held,
    readable_start,
    write_journal,
)
from opengnome.errors import CampaignError


def opened(number: int, n_parents: int = 3) -> RoundOpened:
    return RoundOpened(round=number, n_parents=n_parents, n_shards=1, n_training=5, hull_digest="h")


def test_events_come_back_in_order_and_equal(tmp_path: Path) -> None:
    events = [opened(1), RoundClosed(round=1, metrics={"mae": 0.25}), opened(2)]
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert all(journal.append(event) for event in events)
    with Journal(tmp_path / "journal.sqlite", read_only=True) as journal:
        assert list(journal) == events


def test_a_key_is_written_once_and_the_first_wins(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert journal.append(opened(1, n_parents=3))
        assert not journal.append(opened(1, n_parents=99))
        assert list(journal) == [opened(1, n_parents=3)]


def test_not_a_number_survives(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.append(RoundClosed(round=1, metrics={"mae": math.nan, "limit": math.inf}))
        (event,) = journal
    assert isinstance(event, RoundClosed)
    assert math.isnan(event.metrics["mae"])
    assert event.metrics["limit"] == math.inf


def test_a_disk_that_is_full_is_told_and_costs_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.append(opened(1))
        with journal._engine.connect() as connection:  # the one connection of the pool; at 1 no page can be added
            connection.exec_driver_sql("PRAGMA max_page_count=1")
        told = r"database or disk is full; make room there.* the same command goes on"
        with pytest.raises(CampaignError, match=told):
            all(journal.append(opened(number)) for number in range(2, 500))
    with Journal(path) as journal:
        n_written = len(list(journal))
        assert n_written >= 1
        assert journal.append(opened(n_written + 1))


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CampaignError, match=r"cannot be locked .No locks available.* a file system with locks"):
        Journal(tmp_path / "journal.sqlite")


def test_readers_are_free_while_a_writer_holds_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as writer:
        writer.append(opened(1))
        with Journal(path, read_only=True) as reader:
            assert len(list(reader)) == 1
            writer.append(opened(2))
            assert len(list(reader)) == 2


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first = Journal(path)
    with pytest.raises(CampaignError, match="another process is running"):
        Journal(path)
    first.close()
    Journal(path).close()


def test_reading_where_no_campaign_is(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="holds no campaign"):
        Journal(tmp_path / "journal.sqlite", read_only=True)


def test_an_event_is_durable_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.append(opened(1))
        other = sqlite3.connect(path)
        assert other.execute("select count(*) from events").fetchone() == (1,)
        other.close()


def test_a_damaged_journal_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database at all, but long enough to look at" * 30)
    with pytest.raises(CampaignError, match="cannot be read"), Journal(path, read_only=True) as journal:
        list(journal)


def test_calculations_of_two_rounds_have_two_keys() -> None:
    values = {
        "crystal_id": "x",
        "reduced_formula": "NaCl",
        "status": "converged",
        "reason": "",
        "energy_per_atom": -1.0,
        "n_steps": 1,
        "seconds": 0.1,
        "path": "p",
    }
    assert Calculated(round=0, **values).key != Calculated(round=1, **values).key


OLDEST = """
CREATE TABLE events (sequence INTEGER NOT NULL, "key" VARCHAR NOT NULL, type VARCHAR NOT NULL, payload TEXT NOT NULL,
written_at VARCHAR NOT NULL, PRIMARY KEY (sequence), UNIQUE ("key"));
"""
"""What version 1 made."""


def oldest(path: Path, *events: RoundOpened) -> None:
    """A journal as version 1 wrote it: no version, no table of withdrawn events."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(OLDEST)
    for event in events:
        values = (event.key, event.type, event.model_dump_json(), "2026-11-26T00:39:00.000+00:00")
        connection.execute("INSERT INTO events (key, type, payload, written_at) VALUES (?, ?, ?, ?)", values)
    connection.commit()
    connection.close()


def user_version(path: Path) -> int:
    connection = sqlite3.connect(path)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return version


def test_a_journal_of_the_first_version_is_read_as_it_is_and_brought_up_to_date_by_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    oldest(path, opened(1), opened(2))
    with Journal(path, read_only=True) as journal:
        assert journal.version == 1
        assert list(journal) == [opened(1), opened(2)]
    assert user_version(path) == 0, "a reader changes nothing"
    with Journal(path) as journal:
        assert journal.append(opened(3))
        assert journal.withdraw(["round_opened:2", "round_opened:9"], reason="asked to") == 1
        assert list(journal) == [opened(1), opened(3)]
        assert journal.append(opened(2)), "its key is free again"
        assert list(journal) == [opened(1), opened(3), opened(2)]
    assert user_version(path) == FORMAT_VERSION


def test_a_new_journal_has_the_version_of_today(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    assert user_version(path) == FORMAT_VERSION


def test_a_later_version_is_refused_by_readers_and_writers_and_the_lock_is_free(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION + 1}")
    connection.close()
    for read_only in (True, False):
        with pytest.raises(LaterFormatError, match="install the version that wrote it"):
            Journal(path, read_only=read_only)
    assert not is_held(path)


def test_a_damaged_journal_is_no_journal_to_write_to(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database at all, but long enough to look at" * 30)
    with pytest.raises(CampaignError, match="opengnome check"):
        Journal(path)
    assert not is_held(path)


def test_an_event_of_an_unknown_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    oldest(path, opened(1), opened(2))
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE events SET payload = replace(payload, 'round_opened', 'round_painted') WHERE sequence = 2"
    )
    connection.commit()
    connection.close()
    with (
        Journal(path, read_only=True) as journal,
        pytest.raises(CampaignError, match=r"event 2 .*round_opened:2.* cannot be read"),
    ):
        list(journal)
    assert [row.key for row in readable_start(path)] == ["round_opened:1"]


def test_whether_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    assert not is_held(path)
    with held(path):
        assert is_held(path)
        with pytest.raises(CampaignError, match="another process is running"):
            Journal(path)
        with Journal(path, locked=True) as journal:
            journal.append(opened(1))
    assert not is_held(path)


def test_a_journal_written_anew_has_the_same_rows(tmp_path: Path) -> None:
    path, copy = tmp_path / "journal.sqlite", tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        for number in (1, 2, 3):
            journal.append(opened(number))
        rows = journal.rows()
    assert readable_start(path) == rows
    write_journal(copy, rows)
    with Journal(copy) as journal:
        assert journal.rows() == rows
        assert journal.damage() == []
        journal.append(opened(4))
    write_journal(copy, [])
    with Journal(copy, read_only=True) as journal:
        assert list(journal) == []


def test_names_that_mean_something_in_addresses(tmp_path: Path) -> None:
    folder = tmp_path / "50% #1?mode=memory"
    folder.mkdir()
    with Journal(folder / "journal.sqlite") as journal:
        journal.append(opened(1))
    with Journal(folder / "journal.sqlite", read_only=True) as journal:
        assert list(journal) == [opened(1)]
    assert (folder / "journal.sqlite").is_file()


def test_a_folder_that_takes_no_log_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.append(opened(1))
    assert [p.name for p in tmp_path.glob("*.sqlite*")] == ["journal.sqlite"]
    monkeypatch.setattr("os.access", lambda *_: False)
    with Journal(path, read_only=True) as journal:
        assert list(journal) == [opened(1)]
        assert not path.with_name("journal.sqlite-shm").exists(), "read as it lies there"
