"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary path beside `path`, then move the result into place.

    The content is on the disk before the name is, so a reader, or a restart after a crash, sees the old
    file or the new one, never half of one. Missing parent folders are made, and their names are on the disk, too.
    """
    make_folder(path.parent)
    # The process id keeps two writers of one name apart; the suffix stays last because writers look at it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and what it is in; the names of new ones are on the disk afterwards."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
