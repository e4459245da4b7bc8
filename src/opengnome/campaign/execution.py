"""Units of work on any `concurrent.futures.Executor`: named by their inputs, their result a file.

1. A unit writes its own result file atomically; a unit whose file exists is never run again, by this
   process or the next.
2. The driver asks the files, not the futures. A unit that took its process down is tried again; attempts
   are counted by start marks the unit leaves itself, so the innocents of a broken pool are not charged.
3. Local workers die with the driver, also when it is killed.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from opengnome.errors import WorkFailedError

_POLL_SECONDS = 1.0
_IDLE_BREAKS = 3
"""Broken pools in a row in which no unit began, before the set-up is blamed."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Unit:
    """One piece of work: ``function(**arguments)`` has to leave the file `path`."""

    path: Path
    function: Callable[..., None]
    arguments: dict[str, Any] = field(hash=False)
    log: Path | None = None
    """File whose last line tells how far the unit is."""


@dataclass(frozen=True)
class Ended:
    """A unit that ended: its file is there, or it took its process down too often."""

    unit: Unit
    lost: str = ""
    """Why there is no file; empty when there is one."""


def local_executor(workers: int) -> Executor:
    """Processes of this machine, one thread each; they die with this process."""
    return ProcessPoolExecutor(
        max_workers=workers or os.cpu_count() or 1, mp_context=get_context("spawn"), initializer=_start_worker
    )


def run_units(
    units: Iterable[Unit],
    make_executor: Callable[[], Executor],
    *,
    attempts: int = 3,
    window: int = 64,
    on_wait: Callable[[list[Unit]], None] | None = None,
) -> Iterator[Ended]:
    """Run units and yield each as it ends; `on_wait` is called about once a second with those under way.

    A unit that raises is a fault of the program, not of its data, and stops everything with a
    `WorkFailedError`; functions that work on one crystal record its failure in their file instead.
    """
    waiting: list[Unit] = []
    for unit in units:
        if unit.path.exists():
            _mark(unit.path).unlink(missing_ok=True)  # left by a kill between the file and its own tidying
            yield Ended(unit)
        else:
            waiting.append(unit)
    waiting.reverse()  # taken from the end
    if waiting:
        yield from _Driver(waiting, make_executor, attempts, window, on_wait).run()


class _Driver:
    """Keeps an executor fed, and makes a new one when it broke."""

    def __init__(
        self,
        waiting: list[Unit],
        make_executor: Callable[[], Executor],
        attempts: int,
        window: int,
        on_wait: Callable[[list[Unit]], None] | None,
    ) -> None:
        self.waiting = waiting
        self.running: dict[Future[None], Unit] = {}
        self.make_executor = make_executor
        self.attempts = attempts
        self.window = window
        self.on_wait = on_wait
        self.started_before = {unit.path: _starts(unit.path) for unit in waiting}
        self.executor: Executor | None = None
        self.n_starts = sum(self.started_before.values())
        self.idle_breaks = 0

    def run(self) -> Iterator[Ended]:
        try:
            while self.waiting or self.running:
                broken = self._submit()
                done = wait(self.running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED).done
                for future in done:
                    broken |= isinstance(future.exception(), BrokenExecutor)
                    yield from self._settle(self.running.pop(future), future.exception())
                if broken:
                    self._replace_executor()
                    self._refuse_stillborn()
                elif not done and self.on_wait is not None:
                    self.on_wait(list(self.running.values()))
        finally:
            if self.executor is not None:
                self.executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> bool:
        """Submit up to `window` units; True when the executor turned out broken."""
        if self.executor is None:
            self.executor = self.make_executor()
        while self.waiting and len(self.running) < self.window:
            unit = self.waiting.pop()
            try:
                self.running[self.executor.submit(_run, unit)] = unit
            except BrokenExecutor:
                self.waiting.append(unit)
                return True
        return False

    def _settle(self, unit: Unit, error: BaseException | None) -> Iterator[Ended]:
        if unit.path.exists():
            self.idle_breaks = 0
            yield Ended(unit)
        elif error is not None and not isinstance(error, BrokenExecutor):
            raise WorkFailedError(f"{unit.function.__name__} for {unit.path.name} failed: {error!r}") from error
        elif _starts(unit.path) - self.started_before[unit.path] < self.attempts:
            self.waiting.append(unit)
        else:
            yield Ended(unit, lost=f"its process died {self.attempts} times")

    def _refuse_stillborn(self) -> None:
        """Stop when workers keep dying before they begin: no unit can be blamed, and trying again is endless."""
        n_starts = sum(_starts(path) for path in self.started_before)  # of those given up, too
        self.idle_breaks = 0 if n_starts != self.n_starts else self.idle_breaks + 1
        self.n_starts = n_starts
        if self.idle_breaks >= _IDLE_BREAKS:
            raise WorkFailedError(
                f"worker processes died {self.idle_breaks} times before they began to work. A script that calls this "
                "needs `if __name__ == '__main__':` around the call; otherwise look for a lack of memory"
            )

    def _replace_executor(self) -> None:
        self.waiting.extend(self.running.values())
        self.running.clear()
        if self.executor is not None:
            self.executor.shutdown(wait=True, cancel_futures=True)
        self.executor = None


def _run(unit: Unit) -> None:
    """On the worker: mark the start, then work; nothing when the result is there already."""
    if unit.path.exists():
        return
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    with _mark(unit.path).open("ab") as mark:  # one byte per start; a driver counts those since it began
        mark.write(b".")
    unit.function(**unit.arguments)
    if not unit.path.exists():
        raise WorkFailedError(f"{unit.function.__name__} returned without leaving {unit.path.name}")
    _mark(unit.path).unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".starts")


def _starts(path: Path) -> int:
    try:
        return _mark(path).stat().st_size
    except FileNotFoundError:
        return 0


def _start_worker() -> None:
    # read by OpenMP when torch is imported, which happens later, inside the first unit
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    parent = parent_process()
    if parent is not None:
        # a killed driver would otherwise leave its workers for ever (they hold the pipe's write end)
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
