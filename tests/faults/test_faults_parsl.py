"""Parsl on this machine: workers, its interchange and the driver killed, wrong versions, broken set-ups, hosts."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import opengnome
from faults.driving import LIGHT_START, TESTS, Driving, children, wait_until

pytest.importorskip("parsl", reason='needs Parsl: pip install "opengnome[hpc]"')

POOL = "process_worker_pool"
INTERCHANGE = "interchange"  # its script, or the title that it gives itself
ENDED_S = 60.0
"""By when all has ended that misses four signs of life, one every two seconds."""


def parsl(workers: int, **settings: Any) -> dict[str, Any]:
    return {
        "engine": "parsl",
        "attempts": 5,
        "parsl": {"workers_per_node": workers, "heartbeat_s": 2, **settings},
    }


def processes(root: Path) -> list[int]:
    """Everything of Parsl that works for the driver of a folder."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if POOL in line and str(root) in line]


@pytest.mark.parametrize("workers", [2, 4])
def test_every_unit_ends_once_though_workers_are_killed(tmp_path: Path, workers: int) -> None:
    rng = random.Random(workers)
    driving = Driving(tmp_path, parsl(workers), {"work": 40, "go_on": 2, "die": 1}, seconds=0.5)
    driver = driving.start()
    wait_until(lambda: driving.ledger, timeout_s=300, what="the first unit", processes=[driver])
    n_killed = 0
    while n_killed < 5 and driver.poll() is None:
        time.sleep(rng.uniform(0.2, 1.0))
        # workers, and the process that keeps the books of their pool, which then ends as a whole; not before it has
        # begun to work, or three pools in a row would fail, which stops everything
        pools = [children(pool, "spawn_main") for pool in processes(tmp_path)]
        started = [child for pool in pools for child in pool if len(pool) > workers]
        if started:
            os.kill(rng.choice(started), signal.SIGKILL)
            n_killed += 1
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert set(driving.losses) == {"die-0000"}
    assert "died 5 times" in driving.losses["die-0000"]
    (tmp_path / "results" / "die-0000.starts").unlink()
    driving.assert_all_right()
    wait_until(lambda: not processes(tmp_path), timeout_s=ENDED_S, what="the end of all workers")


def test_driver_killed_what_it_started_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    driving = Driving(tmp_path, parsl(2), {"work": 60, "go_on": 1}, seconds=0.5)
    driver = driving.start()
    wait_until(lambda: len(driving.results) > 3, timeout_s=300, what="results", processes=[driver])
    (interchange,) = children(driver.pid, INTERCHANGE)
    driver.kill()  # the driver alone
    driver.communicate()
    wait_until(lambda: not Path(f"/proc/{interchange}").exists(), timeout_s=10, what="the end of the interchange")
    wait_until(lambda: not processes(tmp_path), timeout_s=ENDED_S, what="the end of all workers")
    finished = {path: path.stat().st_mtime_ns for path in driving.results.values()}
    assert len(finished) < 61, "all was done before the kill: nothing was tested"
    driving.finish()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    driving.assert_all_right()
    assert not driving.losses


def test_interchange_killed_a_new_one_goes_on(tmp_path: Path) -> None:
    driving = Driving(tmp_path, parsl(2), {"work": 30}, seconds=0.5)
    driver = driving.start()
    wait_until(lambda: len(driving.results) > 3, timeout_s=300, what="results", processes=[driver])
    (interchange,) = children(driver.pid, INTERCHANGE)
    os.kill(interchange, signal.SIGKILL)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    driving.assert_all_right()


def test_workers_of_another_version_are_refused(tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(Path(opengnome.__file__).parent, old / "opengnome", ignore=shutil.ignore_patterns("__pycache__"))
    with (old / "opengnome" / "units.py").open("a") as file:
        file.write("\nANOTHER = 1\n")
    path = os.pathsep.join([str(LIGHT_START), str(old), str(TESTS)])
    driving = Driving(tmp_path / "run", parsl(1, worker_init=[f"export PYTHONPATH={path}"]), {"work": 1})
    driver = driving.start()
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert "results of two versions must not mix" in output
    assert not driving.results


def test_blocks_that_cannot_start_are_told_with_their_words(tmp_path: Path) -> None:
    lines = ["echo module: command not found >&2", "exit 3"]
    driving = Driving(tmp_path, parsl(1, worker_init=lines), {"work": 1})
    driver = driving.start()
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert "no block of workers stays alive" in output
    assert "module: command not found" in output


def test_given_hosts_are_reached_by_the_command_in_the_settings(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/bash\necho "$1" >> {tmp_path}/hosts\nHOST=$1 exec bash -c "$2"\n')
    ssh.chmod(0o755)
    settings = parsl(1, where="hosts", hosts=["a", "b"], ssh=str(ssh), address="127.0.0.1")
    driving = Driving(tmp_path, settings, {"work": 6}, seconds=0.2)
    driving.finish()
    driving.assert_all_right()
    assert sorted((tmp_path / "hosts").read_text().split()) == ["a", "b"]
    wait_until(lambda: not processes(tmp_path), timeout_s=ENDED_S, what="the end of all workers")
