"""Starting, killing and judging `drive.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.fault_units import content

TESTS = Path(__file__).parents[1]
LIGHT_START = TESTS / "faults" / "light_start"
_started: list[subprocess.Popen[str]] = []


def end_all() -> None:
    """End every driver that still runs, as after a test that failed."""
    while _started:
        driver = _started.pop()
        if driver.poll() is None:
            kill_group(driver)


@dataclass
class Driving:
    """One folder of results and the driver that fills it."""

    root: Path
    execution: dict[str, Any]
    units: dict[str, int]
    seconds: float = 0.05
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        """The driver, in a process group of its own."""
        asked = {"execution": self.execution, "units": self.units, "seconds": self.seconds}
        path = os.pathsep.join([str(LIGHT_START), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        driver = subprocess.Popen(
            [sys.executable, str(TESTS / "faults" / "drive.py"), str(self.root), json.dumps(asked)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **self.environment},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _started.append(driver)
        return driver

    def finish(self, *, timeout_s: float = 600.0) -> str:
        """Run to the end; what it printed."""
        driver = self.start()
        try:
            output, _ = driver.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)
            output, _ = driver.communicate()
            raise AssertionError(f"the driver did not end in {timeout_s} s: {output}") from None
        assert driver.returncode == 0, output
        return output

    @property
    def results(self) -> dict[str, Path]:
        """Finished units by name."""
        folder = self.root / "results"
        names = {f"{name}-{i:04d}" for name, number in self.units.items() for i in range(number)}
        return {path.name: path for path in folder.iterdir() if path.name in names} if folder.is_dir() else {}

    @property
    def losses(self) -> dict[str, str]:
        """Why units were given up, by name."""
        path = self.root / "losses"
        return dict(line.split(": ", 1) for line in path.read_text().splitlines()) if path.exists() else {}

    @property
    def ledger(self) -> list[str]:
        """What was worked on, in order."""
        path = self.root / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def assert_all_right(self) -> None:
        """Nothing lost, every result what an undisturbed run would have left, and nothing half done lies about."""
        n_units = sum(self.units.values())
        assert len(self.results) + len(self.losses) == n_units
        for path in self.results.values():
            assert path.read_text() == content(path)
        assert not list((self.root / "results").glob("*.starts"))


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a driver and all that it has started; nothing where all of it has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def children(pid: int, containing: str) -> list[int]:
    """Processes that `pid` has started, with `containing` in their command line."""
    listed = subprocess.run(
        ["ps", "-ww", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if containing in line]


def wait_until(reached: Any, *, timeout_s: float, what: str, processes: Sequence[subprocess.Popen[str]] = ()) -> None:
    """Wait until ``reached()`` is true."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        for process in processes:
            assert process.poll() is None, f"ended before {what}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)
