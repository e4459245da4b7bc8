"""Processes of this machine, killed at random moments: nothing lost, nothing finished done twice, the same results."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from faults.driving import Driving, children, kill_group, wait_until

KILLS = int(os.environ.get("FAULT_KILLS", "50"))
WORKERS = 2
SPAWNED = "spawn_main"


@pytest.fixture
def rng() -> random.Random:
    return random.Random(20261126)


def test_driver_and_workers_killed_at_random_moments(tmp_path: Path, rng: random.Random) -> None:
    driving = Driving(tmp_path, {"workers": WORKERS}, {"work": 12 * KILLS, "go_on": 4}, seconds=0.1)
    finished: dict[Path, int] = {}
    n_killed_at_work = 0
    for _ in range(KILLS):
        driver = driving.start()
        assert driver.stdout is not None
        driver.stdout.readline()  # it is ready: its workers are about to start
        time.sleep(rng.uniform(0.0, 1.5))
        n_killed_at_work += driver.poll() is None
        kill_group(driver)
        for path, written in finished.items():
            assert path.stat().st_mtime_ns == written, f"{path} was written again"
        finished = {path: path.stat().st_mtime_ns for path in driving.results.values()}
    driving.finish()
    assert n_killed_at_work > KILLS // 2, "most kills came after the end: nothing was tested"
    driving.assert_all_right()
    assert not driving.losses
    repeated = {line: n for line, n in Counter(driving.ledger).items() if n > 1}
    # only what a kill hit between the end of the work and the file, or a step and the note of it, is done again
    assert sum(n - 1 for n in repeated.values()) <= 2 * KILLS


def test_workers_killed_at_random_moments(tmp_path: Path, rng: random.Random) -> None:
    execution = {"workers": WORKERS, "attempts": KILLS}
    driving = Driving(tmp_path, execution, {"work": 8 * KILLS, "go_on": 4}, seconds=0.2)
    driver = driving.start()
    n_killed = 0
    while n_killed < KILLS and driver.poll() is None:
        n_lines = len(driving.ledger)  # something is done between two kills: only then can all be done in the end
        wait_until(lambda n=n_lines: len(driving.ledger) > n or driver.poll() is not None, timeout_s=120, what="work")
        time.sleep(rng.uniform(0.0, 0.4))
        workers = children(driver.pid, SPAWNED)
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            n_killed += 1
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert n_killed == KILLS
    driving.assert_all_right()
    assert not driving.losses


def test_a_death_takes_no_other_unit_down(tmp_path: Path) -> None:
    units = {"go_on": 1, "die": 3}
    driving = Driving(tmp_path, {"workers": WORKERS, "attempts": 2}, units, seconds=3.0)
    driving.finish()
    assert set(driving.losses) == {f"die-{i:04d}" for i in range(3)}
    assert all("died 2 times; the last time its process was ended by SIGSEGV" in r for r in driving.losses.values())
    steps = [line for line in driving.ledger if "step" in line]
    assert len(steps) == len(set(steps)) == 10, "the long unit was begun once, beside six deaths"


def test_what_hangs_or_eats_memory_is_given_up_and_told(tmp_path: Path) -> None:
    execution = {"workers": WORKERS, "memory_gb": 1.0, "hang_factor": 1.0, "hang_grace_s": 0.5}
    driving = Driving(tmp_path, execution, {"work": 6, "hang": 1, "hog": 1})
    driving.finish()
    assert len(driving.results) == 6
    assert driving.losses["hang-0000"].startswith("hung: killed after 0:00:01 h in ")
    assert driving.losses["hog-0000"].startswith("out of memory: ")


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_asked_to_stop_it_lets_short_units_end_and_goes_on_later(tmp_path: Path, signal_number: signal.Signals) -> None:
    execution = {"workers": WORKERS, "stop_grace_s": 4.0}
    driving = Driving(tmp_path, execution, {"work": 60, "go_on": 1}, seconds=1.0)
    driving.units["go_on"] = 1
    driver = driving.start()
    wait_until(lambda: driving.ledger, timeout_s=120, what="the first unit", processes=[driver])
    asked = time.monotonic()
    os.kill(driver.pid, signal_number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 75, output
    assert "the same command goes on" in output
    assert time.monotonic() - asked < 30
    n_before = len(driving.results)
    assert 0 < n_before < 61
    done = [line for line in driving.ledger if "step" not in line]
    assert len(done) == n_before, "a unit that was under way has ended with its file"
    driving.seconds = 0.01
    driving.finish()
    driving.assert_all_right()


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    driving = Driving(tmp_path, {"workers": WORKERS, "stop_grace_s": 300.0}, {"work": 4}, seconds=200.0)
    driver = driving.start()
    wait_until(lambda: list((tmp_path / "results").glob("*.starts")), timeout_s=120, what="a start", processes=[driver])
    for _ in range(2):
        os.kill(driver.pid, signal.SIGINT)
        time.sleep(1.5)
    driver.communicate(timeout=30)
    assert driver.returncode not in (0, 75)
    assert not children(driver.pid, SPAWNED)
