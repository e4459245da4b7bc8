"""Worker processes of this machine, each with its own pipe: one that dies takes nothing else down.

The pool of the standard library ends all its processes when one dies, and with them calculations that have run for
hours. Here each thread of a pool of threads has a process, and starts another when it dies.
"""

import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from opengnome.campaign.limits import how_it_died

_CONTEXT = get_context("spawn")  # a forked process would inherit torch's threads and their locks
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""What gives a worker one thread. The libraries read it when they are loaded, and a worker loads them before it can do
anything. With a second thread each, that waits in a busy loop between small matrices, workers on all cores took 6.8
times as long to relax crystals by CHGNet (`benchmarks/bench_worker_threads.py`)."""
_LEAVE_S = 5.0
"""Seconds that an idle worker gets to leave."""


class WorkerDiedError(Exception):
    """The process that ran a unit died, it alone: of the unit, or of something that killed it."""


class LocalExecutor(ThreadPoolExecutor):
    """`concurrent.futures.Executor` over processes of this machine.

    A call whose process dies has a `WorkerDiedError` that tells how; all others go on. ``shutdown(cancel_futures=
    True)`` also ends what runs.
    """

    def __init__(self, workers: int, initializer: Callable[[], None]) -> None:
        super().__init__(workers, thread_name_prefix="worker")
        self._prepare = initializer
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._closing = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._in_process, function, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            super().shutdown(wait=False, cancel_futures=True)
            with self._lock:
                self._closing = True
                for worker in self._workers:
                    worker.process.kill()
        super().shutdown(wait=wait)
        if wait:
            for worker in self._workers:
                worker.connection.close()  # all at once: each takes a moment to leave
            for worker in self._workers:
                worker.leave()
            self._workers.clear()

    def _in_process(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        worker: _Worker | None = getattr(self._of_thread, "worker", None)
        if worker is None or not worker.process.is_alive():  # an idle one may have been killed, too
            worker = self._of_thread.worker = self._replace(worker)
        try:
            worker.connection.send((function, args, kwargs))
            error, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            raise WorkerDiedError(f"its process was ended {how_it_died(worker.process.exitcode)}") from None
        if error is not None:
            raise error
        return value

    def _replace(self, dead: "_Worker | None") -> "_Worker":
        with self._lock:  # starting processes is not safe in several threads at once
            if self._closing:
                raise WorkerDiedError("the workers are being closed")
            if dead is not None:
                self._workers.discard(dead)
                dead.leave()
            worker = _Worker(self._prepare)
            self._workers.add(worker)
        return worker


class _Worker:
    """A process and the driver's end of its pipe."""

    def __init__(self, initializer: Callable[[], None]) -> None:
        self.connection, other_end = _CONTEXT.Pipe()
        self.process: SpawnProcess = _CONTEXT.Process(target=_serve, args=(other_end, initializer))
        with _environment(ONE_THREAD):
            self.process.start()
        other_end.close()  # or the death of the process would not end what is read from it

    def leave(self) -> None:
        """Let the process end; it is idle, or dead."""
        self.connection.close()
        self.process.join(_LEAVE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For what is started inside; this process has its own libraries loaded already."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection, initializer: Callable[[], None]) -> None:
    """In the process: run calls until the driver closes its end."""
    initializer()
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        except Exception as error:  # what cannot be imported here
            connection.send((_portable(error), None))
            continue
        try:
            answer: tuple[BaseException | None, Any] = (None, function(*args, **kwargs))
        except BaseException as error:
            answer = (_portable(error), None)
        with suppress(BrokenPipeError):  # the driver is gone
            connection.send(answer)


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, as itself where it can be sent."""
    error.add_note("".join(traceback.format_tb(error.__traceback__)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
