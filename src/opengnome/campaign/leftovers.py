"""Files that no event mentions: finished work of a run that was killed, and what it left half done."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from opengnome.campaign.layout import Layout

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")  # of `replace_file`
_TEMPORARY_GRAPHS = re.compile(r"\.graphs-.+\.(tmp|damaged)")  # folders of `GraphStore.save`
STILL_WRITTEN_S = 600.0
"""A temporary or a mark younger than this may belong to a worker that outlives its driver on another machine, s."""


class Kind(StrEnum):
    """What was left."""

    TEMPORARY = "temporary"
    """A result, or a folder of graphs, that was being written; parts of a shard that is there."""
    START_MARK = "start mark"
    """Of a unit that was under way."""
    HANG_NOTE = "hang note"
    """Of a calculation that was under way, or that was killed because it hung."""
    TRAINING_STATE = "training state"
    """What a training goes on from that has left no network yet; of no use once it has."""
    RESULT = "result"
    """A finished unit that the journal does not know of."""


@dataclass(frozen=True)
class Leftover:
    """A file or a folder that no event mentions."""

    kind: Kind
    path: Path
    result: Path
    """The result that it is, or that it belongs to."""

    @property
    def is_recent(self) -> bool:
        """Whether something may still be at work on it."""
        try:
            # a folder is as young as the file in it that is being written
            parts = [self.path, *(self.path.iterdir() if self.path.is_dir() else ())]
            return time.time() - max(part.stat().st_mtime for part in parts) < STILL_WRITTEN_S
        except FileNotFoundError:
            return True

    @property
    def is_resumed(self) -> bool:
        """Whether `discover` goes on from it."""
        return self.kind == Kind.TRAINING_STATE and not self.result.exists()

    @property
    def tells_of_hang(self) -> bool:
        """Whether it says where a calculation hung."""
        try:
            return self.kind == Kind.HANG_NOTE and self.path.stat().st_size > 0
        except FileNotFoundError:
            return False


def leftovers(layout: Layout, mentioned: frozenset[Path]) -> Iterator[Leftover]:
    """All leftovers of a campaign, in the order of their paths; `mentioned` are the files that events name."""
    for path in sorted(_paths(layout)):
        if path.is_dir():
            if _TEMPORARY_GRAPHS.fullmatch(path.name) or _is_used_up(path):
                yield Leftover(Kind.TEMPORARY, path, path)
        elif _TEMPORARY.fullmatch(path.name):
            yield Leftover(Kind.TEMPORARY, path, path)
        elif path.suffix == ".starts":
            yield Leftover(Kind.START_MARK, path, path.with_suffix(""))
        elif path.suffix == ".hung":
            yield Leftover(Kind.HANG_NOTE, path, path.with_suffix(""))
        elif path.suffix == ".state":
            yield Leftover(Kind.TRAINING_STATE, path, path.with_suffix(".safetensors"))
        elif path not in mentioned and _is_result(path, layout):
            yield Leftover(Kind.RESULT, path, path)


def _paths(layout: Layout) -> Iterator[Path]:
    """Files, and the folders they are in."""
    yield from (path for path in layout.root.glob(".*") if path.is_file())
    for folder in (layout.calculation("").parent, layout.round(0).parent):
        yield from folder.rglob("*")


def _is_used_up(folder: Path) -> bool:
    """Whether a folder holds the parents of a shard one by one, and the shard is there."""
    return folder.suffix == ".parents" and folder.with_suffix(".parquet").exists()


def _is_result(path: Path, layout: Layout) -> bool:
    """Whether a file is what a unit leaves: those of the other stages are written by the driver, and written again."""
    match path.relative_to(layout.root).parts[:-1]:
        case ("calculations",) | ("rounds", _, "shards" | "searches"):
            return path.suffix == ".parquet"
        case ("rounds", _, "members") | ("rounds", _, "compositional", "members"):
            return path.suffix == ".safetensors"
        case ("rounds", _, "shards", parts_of_shard):
            return parts_of_shard.endswith(".parents") and path.suffix == ".parquet" and not _is_used_up(path.parent)
        case _:
            return False
