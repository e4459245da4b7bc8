"""Units of work on any `concurrent.futures.Executor`: named by their inputs, their result a file.

1. A unit writes its own result file atomically; a unit whose file exists is never run again, by this
   process or the next.
2. The driver asks the files, not the futures. A unit that took its process down is tried again; attempts
   are counted by start marks the unit leaves itself, so those that wait are not charged for the deaths of others.
   One that was lost with its block of a queue, or with the engine, is not charged either, and one that has advanced
   since is as new.
3. Local workers die with the driver, also when it is killed.
4. No more than a window of units is submitted: to stop is to stop submitting.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from opengnome.campaign.lasting import LastingExecutor
from opengnome.campaign.limits import OUT_OF_MEMORY, Limits, apply, forget_hang, hang_note, is_out_of_memory
from opengnome.campaign.local_workers import LocalExecutor, WorkerDiedError
from opengnome.campaign.stopping import StopRequest
from opengnome.crystals.replacement import make_folder
from opengnome.errors import OpenGnomeError, WorkFailedError
from opengnome.oracles.scratch import is_fault_of_disk

_POLL_SECONDS = 1.0
_IDLE_BREAKS = 3
"""Broken pools in a row in which no unit began, before the set-up is blamed."""
_UNBORN_DEATHS = 10
"""Single workers in a row that died before their unit began, before the set-up is blamed."""
_VISIBLE_SECONDS = 60.0
"""How long a file written on another machine may take to be seen here: network file systems keep what they know."""


class BlockLostError(Exception):
    """The block of a queue, or the node, that ran a unit is gone; the unit is not to blame."""


class EngineDiedError(BrokenExecutor):
    """What carries the units has ended as a whole; none of them is to blame."""


class BlocksFailError(EngineDiedError):
    """Blocks of a queue end as soon as they begin: the set-up is to blame."""


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
    """A unit that ended: its file is there, or it is given up."""

    unit: Unit
    lost: str = ""
    """Why there is no file; empty when there is one."""
    seconds: float = 0.0
    """How long its worker was at it, in the attempt that ended it; zero where nothing was done or told."""


@dataclass(frozen=True)
class Rules:
    """How units are run."""

    attempts: int = 3
    """How often a unit may take its process down before it is given up."""
    interruptions: int = 20
    """How often the block that runs a unit may be lost before the unit is given up."""
    window: int = 64
    """Units submitted at once."""
    limits: Limits = field(default_factory=Limits)


def local_executor(workers: int) -> Executor:
    """Processes of this machine, one thread each; 0 is one per core that this process may use.

    They die with this process.
    """
    return LocalExecutor(workers or available_cores(), _start_worker)


def available_cores() -> int:
    """Cores that this process may use, which a queue or a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_units(
    units: Iterable[Unit],
    make_executor: Callable[[], Executor],
    *,
    attempts: int = 3,
    window: int = 64,
    rules: Rules | None = None,
    stop: StopRequest | None = None,
    on_wait: Callable[[list[Unit]], None] | None = None,
) -> Iterator[Ended]:
    """Run units and yield each as it ends; `on_wait` is called about once a second with those under way.

    `rules` are in place of `attempts` and `window`. When all have ended the executor is shut down; with
    ``cancel_futures`` where they have not, because of an error, a stop, or because the caller wants no more.

    A unit that raises is a fault of the program, not of its data, and stops everything with a
    `WorkFailedError`; functions that work on one crystal record its failure in their file instead. One for which
    memory is too small is given up. Raises `StoppedError` when `stop` asks for it.
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
        rules = rules or Rules(attempts=attempts, window=window)
        yield from _Driver(waiting, make_executor, rules, stop or StopRequest(), on_wait).run()


class _Driver:
    """Keeps an executor fed, and makes a new one when it broke."""

    def __init__(
        self,
        waiting: list[Unit],
        make_executor: Callable[[], Executor],
        rules: Rules,
        stop: StopRequest,
        on_wait: Callable[[list[Unit]], None] | None,
    ) -> None:
        self.waiting = waiting
        self.running: dict[Future[float], Unit] = {}
        self.make_executor = make_executor
        self.rules = rules
        self.stop = stop
        self.on_wait = on_wait
        self.started_before = {unit.path: _starts(unit.path) for unit in waiting}
        self.starts = dict(self.started_before)
        self.told = {unit.path: _last_word(unit) for unit in waiting}
        self.interrupted: Counter[Path] = Counter()
        self.executor: Executor | None = None
        self.n_starts = sum(self.started_before.values())
        self.idle_breaks = 0
        self.unborn_deaths = 0

    def run(self) -> Iterator[Ended]:
        all_ended = False
        try:
            while (self.waiting or self.running) and not self.stop.is_asked:
                yield from self._step()
            if self.stop.is_asked:
                yield from self._wind_down()
            self.stop.refuse_more()
            all_ended = True
        finally:
            if self.executor is not None:
                self.executor.shutdown(wait=True, cancel_futures=not all_ended)

    def _step(self) -> Iterator[Ended]:
        broken = self._submit()
        done = wait(self.running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED).done
        for future in done:
            error = _error_of(future)
            if isinstance(error, BrokenExecutor):
                broken = error
            yield from self._settle(self.running.pop(future), error, 0.0 if error else future.result())
        if broken is not None:
            self._replace_executor()
            self._refuse_stillborn(broken)
        elif not done and self.on_wait is not None:
            self.on_wait(list(self.running.values()))

    def _wind_down(self) -> Iterator[Ended]:
        """Wait for what ends in time; the others are ended with the executor, and go on from their folders."""
        inner = self.executor.inner if isinstance(self.executor, LastingExecutor) else self.executor
        if isinstance(inner, ThreadPoolExecutor | ProcessPoolExecutor):  # a queue's do not say what has begun
            self.running = {future: unit for future, unit in self.running.items() if not future.cancel()}
        if self.running and self.stop.grace_s > 0:
            self.stop.tell(
                f"{self.stop.by}: stopping; {len(self.running)} units under way have {self.stop.grace_s:g} s to end"
            )
        deadline = time.monotonic() + self.stop.grace_s
        while self.running and (left := deadline - time.monotonic()) > 0:
            done = wait(self.running, timeout=left, return_when=FIRST_COMPLETED).done
            for future in done:
                unit = self.running.pop(future)
                if unit.path.exists():  # anything else is for the next time
                    yield Ended(unit)

    def _submit(self) -> BrokenExecutor | None:
        """Submit up to `window` units; the error when the executor turned out broken."""
        if self.executor is None:
            self.executor = self.make_executor()
        while self.waiting and len(self.running) < self.rules.window:
            unit = self.waiting.pop()
            try:
                self.running[self.executor.submit(_run, unit, self.rules.limits)] = unit
            except BrokenExecutor as error:
                self.waiting.append(unit)
                return error
        return None

    def _settle(self, unit: Unit, error: BaseException | None, seconds: float) -> Iterator[Ended]:
        if unit.path.exists() or (error is None and _becomes_visible(unit.path)):
            self.idle_breaks = self.unborn_deaths = 0
            if error is not None:  # it died of something after its work
                _tidy(unit.path)
            yield Ended(unit, seconds=seconds)
        elif error is None:
            raise WorkFailedError(
                f"a worker says that it has written {unit.path}, and it is not seen here: the folder must be on a file "
                "system that all workers and this machine share, under the same path"
            )
        elif isinstance(error, EngineDiedError) and _starts(unit.path) == self.starts[unit.path]:
            self.waiting.append(unit)  # it had not begun
        elif isinstance(error, BlockLostError | EngineDiedError):
            yield from self._interrupted(unit)
        elif isinstance(error, BrokenExecutor | WorkerDiedError):
            yield from self._died(unit, error)
        elif is_out_of_memory(error):
            yield Ended(unit, lost=f"{OUT_OF_MEMORY}{error}")
        elif is_fault_of_disk(error) and not isinstance(error, OpenGnomeError):
            raise WorkFailedError(
                f"a worker cannot write {unit.path}: {error}; make room there, or make it writable: what is finished "
                "is kept, and the same command goes on"
            ) from error
        else:
            raise WorkFailedError(f"{unit.function.__name__} for {unit.path.name} failed: {error!r}") from error

    def _forgive(self, unit: Unit) -> None:
        """What took a unit down before it advanced is not counted: it does many things, of which it has done some."""
        if (word := _last_word(unit)) != self.told[unit.path]:
            self.told[unit.path] = word
            self.interrupted[unit.path] = 0
            self.started_before[unit.path] = max(0, _starts(unit.path) - 1)

    def _interrupted(self, unit: Unit) -> Iterator[Ended]:
        self._forgive(unit)
        self.interrupted[unit.path] += 1
        self.started_before[unit.path] = self.starts[unit.path] = _starts(unit.path)
        if self.interrupted[unit.path] <= self.rules.interruptions:
            self.waiting.append(unit)
        else:
            yield Ended(unit, lost=f"the block that ran it was lost {self.interrupted[unit.path]} times")

    def _died(self, unit: Unit, error: BaseException) -> Iterator[Ended]:
        if isinstance(error, WorkerDiedError):
            self._count_unborn(unit, error)
            _remove_temporaries(unit.path)
        if self.stop.is_asked:  # what asked us may have ended the workers, too; the next run begins it again
            return
        self._forgive(unit)
        hung = hang_note(unit.path)
        n_deaths = _starts(unit.path) - self.started_before[unit.path]
        if hung:
            forget_hang(unit.path)
            yield Ended(unit, lost=hung)
        elif n_deaths < self.rules.attempts:
            self.waiting.append(unit)
        else:
            last = f"; the last time {error}" if isinstance(error, WorkerDiedError) else ""
            yield Ended(unit, lost=f"its process died {n_deaths} times{last}")

    def _count_unborn(self, unit: Unit, error: WorkerDiedError) -> None:
        """Stop when workers keep dying before they begin: no unit can be blamed, and trying again is endless."""
        n_starts = _starts(unit.path)
        self.unborn_deaths = self.unborn_deaths + 1 if n_starts == self.starts[unit.path] else 0
        self.starts[unit.path] = n_starts
        if self.unborn_deaths >= _UNBORN_DEATHS:
            raise WorkFailedError(_stillborn(self.unborn_deaths, error))

    def _refuse_stillborn(self, error: BrokenExecutor) -> None:
        """The same for executors that break as a whole."""
        n_starts = sum(_starts(path) for path in self.started_before)  # of those given up, too
        self.idle_breaks = 0 if n_starts != self.n_starts else self.idle_breaks + 1
        self.n_starts = n_starts
        if self.idle_breaks and isinstance(error, BlocksFailError):
            raise WorkFailedError(f"no block of workers stays alive: {error}") from error
        if self.idle_breaks >= _IDLE_BREAKS:
            raise WorkFailedError(_stillborn(self.idle_breaks, error))

    def _replace_executor(self) -> None:
        self.waiting.extend(self.running.values())
        self.running.clear()
        if self.executor is not None:
            self.executor.shutdown(wait=True, cancel_futures=True)
        self.executor = None


def _stillborn(n_deaths: int, error: BaseException) -> str:
    return (
        f"worker processes died {n_deaths} times before they began to work ({error}). A script that calls this "
        "needs `if __name__ == '__main__':` around the call; otherwise look for a lack of memory"
    )


def _error_of(future: Future[float]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError:  # an engine that cancels what it lost
        return BlockLostError("cancelled")


def _becomes_visible(path: Path) -> bool:
    """Whether a file that another machine has written is seen here soon."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):  # to list a folder makes a network file system ask its server
            if path.name in os.listdir(path.parent):  # noqa: PTH208 - names are enough
                return True
        time.sleep(0.2)
    return False


def _run(unit: Unit, limits: Limits = Limits()) -> float:  # noqa: B008 - immutable
    """On the worker: mark the start, then work; nothing when the result is there already. Seconds it took."""
    began = time.monotonic()
    apply(limits)
    if unit.path.exists():
        return 0.0
    make_folder(unit.path.parent)
    with _mark(unit.path).open("ab") as mark:  # one byte per start; a driver counts those since it began
        mark.write(b".")
    unit.function(**unit.arguments)
    if not unit.path.exists():
        raise WorkFailedError(f"{unit.function.__name__} returned without leaving {unit.path.name}")
    _mark(unit.path).unlink(missing_ok=True)
    return time.monotonic() - began


def _last_word(unit: Unit) -> str:
    """The last line of its log, which tells how far it is; empty where there is none."""
    try:
        return "" if unit.log is None else unit.log.read_text().strip().rpartition("\n")[2]
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".starts")


def _tidy(path: Path) -> None:
    """Remove what a dead worker has left beside its result."""
    _mark(path).unlink(missing_ok=True)
    _remove_temporaries(path)


def _remove_temporaries(path: Path) -> None:
    for temporary in path.parent.glob(f".{escape(path.stem)}.*.tmp{path.suffix}"):  # of `replace_file`
        temporary.unlink(missing_ok=True)


def _starts(path: Path) -> int:
    try:
        with _mark(path).open("rb") as mark:  # to open it makes a network file system ask its server
            return mark.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0


def _start_worker() -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):  # sent to all processes of a terminal or a job: the driver decides
        signal.signal(number, signal.SIG_IGN)
    # Of a job, too; but programs that a worker starts inherit what is ignored, and engines end theirs by it. What is
    # handled they do not inherit.
    signal.signal(signal.SIGTERM, _leave_it_to_the_driver)
    parent = parent_process()
    if parent is not None:
        # a killed driver would otherwise leave its workers for ever (they hold the pipe's write end)
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _leave_it_to_the_driver(_number: int, _frame: object) -> None:
    pass


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
