"""Files that no event mentions: finished work of a run that was killed, and what it left half done."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from opengnome.campaign.layout import Layout

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")  # of `replace_file`
STILL_WRITTEN_S = 600.0
"""A temporary or a mark younger than this may belong to a worker that outlives its driver on another machine, s."""


class Kind(StrEnum):
    """What was left."""

    TEMPORARY = "temporary"
    """A result that was being written."""
    START_MARK = "start mark"
    """Of a unit that was under way."""
    HANG_NOTE = "hang note"
    """Of a calculation that was under way, or that was killed because it hung."""
    RESULT = "result"
    """A finished unit that the journal does not know of."""


@dataclass(frozen=True)
class Leftover:
    """A file that no event mentions."""

    kind: Kind
    path: Path
    result: Path
    """The result that it is, or that it belongs to."""

    @property
    def is_recent(self) -> bool:
        """Whether something may still be at work on it."""
        try:
            return time.time() - self.path.stat().st_mtime < STILL_WRITTEN_S
        except FileNotFoundError:
            return True

    @property
    def tells_of_hang(self) -> bool:
        """Whether it says where a calculation hung."""
        try:
            return self.kind == Kind.HANG_NOTE and self.path.stat().st_size > 0
        except FileNotFoundError:
            return False


def leftovers(layout: Layout, mentioned: frozenset[Path]) -> Iterator[Leftover]:
    """All leftovers of a campaign, in the order of their paths; `mentioned` are the files that events name."""
    for path in sorted(_files(layout)):
        if _TEMPORARY.fullmatch(path.name):
            yield Leftover(Kind.TEMPORARY, path, path)
        elif path.suffix == ".starts":
            yield Leftover(Kind.START_MARK, path, path.with_suffix(""))
        elif path.suffix == ".hung":
            yield Leftover(Kind.HANG_NOTE, path, path.with_suffix(""))
        elif path not in mentioned and _is_result(path, layout):
            yield Leftover(Kind.RESULT, path, path)


def _files(layout: Layout) -> Iterator[Path]:
    yield from (path for path in layout.root.glob(".*") if path.is_file())
    for folder in (layout.calculation("").parent, layout.round(0).parent):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _is_result(path: Path, layout: Layout) -> bool:
    """Whether a file is what a unit leaves: those of the other stages are written by the driver, and written again."""
    folder = path.parent
    if folder == layout.calculation("").parent:
        return path.suffix == ".parquet"
    if folder.parent.parent != layout.round(0).parent:
        return False
    return (folder.name in ("shards", "searches") and path.suffix == ".parquet") or (
        folder.name == "members" and path.suffix == ".safetensors"
    )
