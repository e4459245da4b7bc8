"""Units on a real pool of processes: deaths, exceptions, finished work."""

import json
import os
import signal
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from opengnome.campaign import Progress
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.execution import Unit, local_executor, run_units
from opengnome.campaign.execution_settings import ExecutionSettings
from opengnome.campaign.executors import Crew, rules_of
from opengnome.campaign.local_workers import ONE_THREAD
from opengnome.errors import WorkFailedError


def write(path: Path, text: str) -> None:
    path.write_text(text)


def die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_the_first_time(path: Path, marker: Path) -> None:
    if not marker.exists():
        marker.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_text("second attempt")


def break_down(path: Path) -> None:
    raise RuntimeError("a fault of the program")


def two_processes() -> Executor:
    return local_executor(2)


def threads() -> Executor:
    return ThreadPoolExecutor(2)


def units_writing(folder: Path, n: int) -> list[Unit]:
    return [Unit(folder / f"{i}.txt", write, {"path": folder / f"{i}.txt", "text": str(i)}) for i in range(n)]


def test_every_unit_ends_once_with_its_file(tmp_path: Path) -> None:
    units = units_writing(tmp_path, 9)
    ended = list(run_units(units, two_processes))
    assert sorted(e.unit.path for e in ended) == sorted(u.path for u in units)
    assert [u.path.read_text() for u in units] == [str(i) for i in range(9)]
    assert not list(tmp_path.glob("*.starts"))


def test_a_unit_whose_file_exists_is_not_run(tmp_path: Path) -> None:
    (unit,) = units_writing(tmp_path, 1)
    unit.path.write_text("from before")

    def refuse() -> Executor:
        raise AssertionError("no executor is needed for finished work")

    assert [e.unit for e in run_units([unit], refuse)] == [unit]
    assert unit.path.read_text() == "from before"


def test_a_unit_that_kills_its_process_is_given_up_and_the_others_finish(tmp_path: Path) -> None:
    poison = Unit(tmp_path / "poison", die, {"path": tmp_path / "poison"})
    ended = list(run_units([poison, *units_writing(tmp_path, 6)], two_processes, attempts=2))
    lost = [e for e in ended if e.lost]
    assert [e.unit for e in lost] == [poison]
    assert "died 2 times" in lost[0].lost
    assert len(ended) == 7


def test_a_unit_that_dies_once_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "result"
    unit = Unit(path, die_the_first_time, {"path": path, "marker": tmp_path / "marker"})
    (ended,) = run_units([unit], two_processes)
    assert not ended.lost
    assert path.read_text() == "second attempt"


def test_a_fault_of_the_program_stops_everything(tmp_path: Path) -> None:
    unit = Unit(tmp_path / "x", break_down, {"path": tmp_path / "x"})
    with pytest.raises(WorkFailedError, match="a fault of the program"):
        list(run_units([unit], threads))


def test_any_executor_will_do(tmp_path: Path) -> None:
    assert len(list(run_units(units_writing(tmp_path, 5), threads, window=2))) == 5


def sleep_and_write(path: Path, seconds: float) -> None:
    time.sleep(seconds)
    path.write_text("done")


def test_the_time_at_a_unit_is_told_and_none_for_what_was_there(tmp_path: Path) -> None:
    unit = Unit(tmp_path / "slept", sleep_and_write, {"path": tmp_path / "slept", "seconds": 0.2})
    (ended,) = run_units([unit], threads)
    assert 0.2 <= ended.seconds < 60
    (again,) = run_units([unit], threads)
    assert again.seconds == 0.0


def test_the_share_of_a_stage_that_workers_were_busy_is_recorded(tmp_path: Path) -> None:
    slept = [tmp_path / "results" / str(i) for i in range(3)]
    units = [Unit(path, sleep_and_write, {"path": path, "seconds": 0.2}) for path in slept]
    progress = Progress(tmp_path / "progress.jsonl", quiet=True)
    list(run_with_progress(units, threads, progress=progress, stage="sleeping", workers=2))
    unit = Unit(tmp_path / "broken", break_down, {"path": tmp_path / "broken"})
    with pytest.raises(WorkFailedError):
        list(run_with_progress([unit], threads, progress=progress, stage="failing"))
    lines = (tmp_path / "progress.jsonl").read_text().splitlines()
    whole, failed = [record for line in lines if line and "stage" in (record := json.loads(line))]
    assert (whole["stage"], whole["units"], whole["workers"]) == ("sleeping", 3, 2)
    assert 0.6 <= whole["busy_s"] <= 2 * whole["wall_s"] + 0.1
    assert (failed["stage"], failed["units"], failed["workers"]) == ("failing", 0, None)


def multiply(path: Path) -> None:
    """Large products, and how long each thread of the process was at them, in clock ticks."""
    matrix = np.ones((800, 800))
    for _ in range(30):
        matrix = matrix @ matrix / 800
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    others = [int((task / "stat").read_text().rpartition(")")[2].split()[11]) for task in tasks]
    path.write_text(str(sum(others)))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core nobody takes a second thread")
@pytest.mark.parametrize("engine", ["local", "parsl"])
def test_a_worker_has_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Also for the libraries that it loads before it does anything; two each made relaxations seven times as slow."""
    for name in ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "results" / "ticks"
    settings = ExecutionSettings(workers=1) if engine == "local" else ExecutionSettings(engine="parsl")
    if engine == "parsl":
        pytest.importorskip("parsl", reason='needs Parsl: pip install "opengnome[hpc]"')
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # where its workers find us
    with Crew(settings, tmp_path / "execution") as crew:
        list(run_units([Unit(path, multiply, {"path": path})], crew, rules=rules_of(settings)))
    assert int(path.read_text()) <= 5, "other threads than the first have worked"
