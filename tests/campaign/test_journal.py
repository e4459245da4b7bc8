import math
import sqlite3
from pathlib import Path

import pytest

from opengnome.campaign.events import Calculated, RoundClosed, RoundOpened
from opengnome.campaign.journal import Journal
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
