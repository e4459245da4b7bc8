"""One process at a time in the folder of a calculation; another one waits for it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from opengnome.errors import OracleSetupError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
"""Between two looks at a lock that another process holds; each pause is twice the one before."""


@contextmanager
def locked(folder: Path, *, setting: str, wait_s: float = 0.0) -> Iterator[bool]:
    """Whether this process alone works in `folder`, which is made; the lock goes with the process, however it ends.

    While another process holds it, this one waits, `wait_s` seconds at most, and then is told False. What the other
    one left is there once it is True: look for its result before calculating. Raises `OracleSetupError`, which names
    the `setting` with the place, when the folder cannot be written to or its file system has no locks.
    """
    lock, is_ours = _take(folder, setting, time.monotonic() + wait_s)
    with lock:
        yield is_ours


def busy(folder: Path, waited_s: float) -> OracleSetupError:
    """The error of who waited for another process, and gave up.

    Nothing is known of the crystal, so it gets no result: a later one would never be asked for.
    """
    return OracleSetupError(
        f"another process has been calculating a crystal in {folder} for more than {waited_s:g} s, the time limit of "
        "this one; let it finish, or end it, and run this again: it reads what is there"
    )


def _take(folder: Path, setting: str, deadline: float) -> tuple[TextIO, bool]:
    """The open lock file of the folder, and whether this process holds it at the `deadline` of `time.monotonic`."""
    pause = _FIRST_PAUSE_S
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("w")
        except OSError as error:
            raise OracleSetupError(f"cannot write to {folder}: {error.strerror}; set {setting}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return lock, False
            lock.close()  # the file may be another one after the pause
            time.sleep(min(pause, remaining))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            continue
        except OSError as error:  # a second process would end the program that the first one runs there
            lock.close()
            raise OracleSetupError(
                f"the file system of {folder} gives no locks ({error.strerror}), without which two processes would "
                f"work in one folder; set {setting} to a place that has them"
            ) from error
        if _is_there(folder / "lock", lock):
            return lock, True
        lock.close()  # the folder was removed by who held it before: this lock guards nothing


def _is_there(path: Path, lock: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
