"""Progress on a terminal, in a pipe, and in the file beside."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from opengnome.campaign import Progress
from opengnome.campaign import progress as module


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands in for `time`: what is asked for is what was set."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.7e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def records(path: Path) -> list[dict[str, Any]]:
    """As a reader has it: empty lines are skipped."""
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def messages(path: Path) -> list[str]:
    return [record["message"] for record in records(path)]


def test_a_message_is_a_plain_line_with_the_elapsed_time(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    clock.now += 125
    progress.message("round 1 closed")
    assert stream.getvalue() == "[  2:05] round 1 closed\n"


def test_steps_in_a_pipe_are_lines_every_ten_seconds_and_the_last(clock: Clock, tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "progress.jsonl"
    progress = Progress(path, stream=stream)
    for done in range(1, 31):
        clock.now += 1
        progress.step("screening", done, 30, "a note")
    expected = ["screening: 1/30  a note", "screening: 12/30  a note", "screening: 23/30  a note"]
    expected.append("screening: 30/30  a note")
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == expected
    assert "\r" not in stream.getvalue()
    assert messages(path) == expected


def test_a_step_on_a_terminal_rewrites_its_line_without_leaving_rests(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream=stream)
    progress.step("relaxing", 1, 3, "a note that is long")
    progress.step("relaxing", 2, 3)
    progress.message("done")
    assert "\n" not in stream.getvalue().removesuffix("\n")
    assert on_screen(stream.getvalue()) == ["[  0:00] done"]


def test_a_message_of_a_terminal_stays_above_the_next_step(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream=stream)
    progress.step("relaxing", 1, 3)
    progress.message("something happened")
    progress.step("relaxing", 2, 3)
    assert on_screen(stream.getvalue()) == ["[  0:00] something happened", "[  0:00] relaxing: 2/3"]


def test_quiet_writes_the_json_lines_only(clock: Clock, tmp_path: Path) -> None:
    for stream in (io.StringIO(), Terminal()):
        path = tmp_path / f"{type(stream).__name__}.jsonl"
        progress = Progress(path, stream=stream, quiet=True)
        progress.message("begun")
        progress.step("relaxing", 1, 2)
        progress.step("relaxing", 2, 2)
        assert stream.getvalue() == ""
        assert messages(path) == ["begun", "relaxing: 2/2"]


def test_json_lines_are_dated_and_appended_to_those_of_an_earlier_run(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    Progress(path, quiet=True).message('first "run"\nof two lines')
    clock.now += 60
    Progress(path, quiet=True).message("resumed")
    assert messages(path) == ['first "run"\nof two lines', "resumed"]
    assert [record["time"] for record in records(path)] == [1.7e9 + 1000, 1.7e9 + 1060]


def test_a_record_that_a_kill_cut_off_does_not_spoil_the_next(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    Progress(path, quiet=True).message("whole")
    cut_off = path.read_text() + path.read_text()[:-8]
    path.write_text(cut_off)
    Progress(path, quiet=True).message("resumed")
    assert path.read_text().startswith(cut_off)
    assert json.loads(path.read_text().splitlines()[-1])["message"] == "resumed"


def test_without_a_path_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Progress(stream=io.StringIO()).message("nowhere else")
    assert list(tmp_path.iterdir()) == []


def on_screen(written: str) -> list[str]:
    """What a terminal shows after carriage returns have overwritten lines."""
    shown = []
    for line in written.split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).rstrip())
    return [line for line in shown if line]


def test_a_finished_stage_is_recorded_and_not_shown(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "progress.jsonl"
    progress = Progress(path, stream=stream)
    progress.record_stage("round 1, training", 4, busy_s=7.0, wall_s=4.0, workers=2)
    (record,) = records(path)
    assert {name: record[name] for name in ("stage", "units", "busy_s", "wall_s", "workers")} == {
        "stage": "round 1, training",
        "units": 4,
        "busy_s": 7.0,
        "wall_s": 4.0,
        "workers": 2,
    }
    assert stream.getvalue() == ""


def test_a_file_that_takes_no_records_is_told_of_once_and_stops_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = Progress(tmp_path / "gone" / "progress.jsonl", stream=stream, quiet=True)
    progress.message("round 1")
    progress.record_stage("screening", 3, busy_s=1.0, wall_s=2.0, workers=2)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("no progress is recorded in")
    assert line.endswith("No such file or directory")
