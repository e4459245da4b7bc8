"""The folder calculations write to: a disk that is full or gone fails every crystal, and is the fault of none."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opengnome.errors import OracleSetupError

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""No space, over quota, mounted read-only, broken, taken away."""
_WORDS = ("No space left on device", "Disk quota exceeded", "Read-only file system", "database or disk is full")
"""The same as libraries say it that have errors of their own."""
_OF_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""No room helps against these."""


def is_fault_of_disk(error: BaseException | None) -> bool:
    """Whether the disk is to blame for an error, or for one that it came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            return True
        if any(words in str(error) for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def unwritable(folder: Path, error: BaseException, *, setting: str) -> OracleSetupError:
    """The error of a set-up whose `setting` says to write to `folder`, where `error` was met."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    is_denied = isinstance(error, OSError) and error.errno in _OF_PERMISSION
    remedy = "make it writable for this user" if is_denied else "make room there"
    return OracleSetupError(
        f"cannot write to {folder}: {said}; {remedy}, or set {setting} to another place. What is calculated "
        "is kept: run it again"
    )


@contextmanager
def writing_to(folder: Path, *, setting: str) -> Iterator[None]:
    """Around code that only writes our own files: whatever the system refuses it is an `OracleSetupError`."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error, setting=setting) from error
