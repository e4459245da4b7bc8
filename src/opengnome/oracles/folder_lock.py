"""One process at a time in the folder of a calculation."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from opengnome.errors import OracleSetupError


@contextmanager
def locked(folder: Path, *, setting: str) -> Iterator[bool]:
    """Whether this process alone works in `folder`, which is made; the lock goes with the process, however it ends.

    Raises `OracleSetupError`, which names the `setting` with the place, when the folder cannot be written to.
    """
    lock, is_ours = _take(folder, setting)
    with lock:
        yield is_ours


def _take(folder: Path, setting: str) -> tuple[TextIO, bool]:
    """The open lock file of the folder, and whether this process holds it."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("w")
        except OSError as error:
            raise OracleSetupError(f"cannot write to {folder}: {error.strerror}; set {setting}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock, False
        except OSError:
            return lock, True  # a file system without locks: nothing is lost but the check
        if _is_there(folder / "lock", lock):
            return lock, True
        lock.close()  # the folder was removed by who held it before: this lock guards nothing


def _is_there(path: Path, lock: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
