"""What a unit of work may take on its worker: memory, time, and the version of the program that runs it.

A relaxation looks at its own time limit between two steps. What never comes back from a step (a deadlock, an endless
loop in compiled code, a file system that hangs) is ended from outside of it: by a thread of C that needs no Python
lock, writes where the program hangs, and ends the process.
"""

import faulthandler
import hashlib
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import opengnome
from opengnome.errors import WorkFailedError

HUNG = "hung: "
"""Begins the reason of a calculation that was killed because it did not come back."""
OUT_OF_MEMORY = "out of memory: "
"""Begins the reason of a unit that could not get the memory it asked for."""
_ALLOCATOR_OF_TORCH = ("can't allocate memory", "out of memory")


@dataclass(frozen=True)
class Limits:
    """What each unit is held to."""

    memory_gb: float | None = None
    """Memory that a worker process may write to, GiB; no limit when None."""
    hang_factor: float = 2.0
    """A calculation is killed after this many times its own time limit ..."""
    hang_grace_s: float = 600.0
    """... and this many seconds."""
    code: str = ""
    """`code_identity` of the driver, which the worker's must equal; not looked at when empty."""

    def seconds_to_hang(self, timeout_s: float) -> float:
        """When a calculation with the time limit `timeout_s` is taken to hang, seconds."""
        return self.hang_factor * timeout_s + self.hang_grace_s


_current = Limits()


def apply(limits: Limits) -> None:
    """On a worker, before a unit: hold this process to `limits`.

    Raises `WorkFailedError` when the worker's program is not the driver's.
    """
    global _current
    if limits.code and limits.code != code_identity():
        raise WorkFailedError(
            f"a worker on {platform.node()} runs opengnome {code_identity()}, the driver {limits.code}: results of two "
            "versions must not mix. Where the package was changed while this ran, give the same command again; else "
            "install the driver's version where workers start (execution.parsl.python, execution.parsl.worker_init, or "
            "the environment of the Dask workers)"
        )
    if limits.memory_gb is not None:
        _cap_memory(int(limits.memory_gb * 2**30))
    elif _current.memory_gb is not None:  # of an earlier campaign, on a worker of Dask
        _free_memory()
    _current = limits


def _cap_memory(n_bytes: int) -> None:
    """Refuse this process, and each program it starts, more writable memory.

    Data, not address space: torch and CUDA reserve many times what they use, and that is not counted here.
    """
    import resource  # not on every system

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _free_memory() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python and NumPy have an exception for it, torch has words."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_OF_TORCH)
    )


@lru_cache(maxsize=1)
def code_identity() -> str:
    """Version of this package and a hash of its source, e.g. ``0.1.0+4be81c05d3f2``."""
    root = Path(opengnome.__file__).parent
    content = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{opengnome.__version__}+{content.hexdigest()[:12]}"


@contextmanager
def killed_when_hung(path: Path, timeout_s: float) -> Iterator[None]:
    """Inside, the process is ended when a calculation with the time limit `timeout_s` does not come back.

    `path` is the file that the calculation is to leave; `hang_note` then tells where it hung. One at a time in a
    process.
    """
    note = _note(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.open("w") as file:
        faulthandler.dump_traceback_later(_current.seconds_to_hang(timeout_s), exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    note.unlink(missing_ok=True)


def hang_note(path: Path) -> str:
    """Why the calculation that was to leave `path` was killed as hanging; empty when it was not."""
    try:
        lines = _note(path).read_text().splitlines()
    except FileNotFoundError:
        return ""
    if not lines:  # it runs, or its process died of something else
        return ""
    # "Timeout (0:00:10)!", then each thread with its innermost call first; the main thread is the last one
    threads = [number for number, line in enumerate(lines) if "most recent call first" in line]
    innermost = lines[threads[-1] + 1].strip() if threads and threads[-1] + 1 < len(lines) else "an unknown place"
    return f"{HUNG}killed after {lines[0].removeprefix('Timeout ').strip('()!')} h in {innermost}"


def forget_hang(path: Path) -> None:
    """Remove the note on a hanging calculation, once it is recorded."""
    _note(path).unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".hung")


def how_it_died(exit_code: int | None) -> str:
    """In words, the exit code of a process: negative is the number of the signal that ended it."""
    if exit_code is None:
        return "in an unknown way"
    if exit_code >= 0:
        return f"with exit code {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    return f"by {name}" + (" (memory ran out?)" if -exit_code == signal.SIGKILL else "")
