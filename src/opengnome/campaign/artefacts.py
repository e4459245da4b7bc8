"""What the events of a campaign vouch for: which files, and whether they are what the event says."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign.events import (
    Calculated,
    CampaignStarted,
    CompositionsProposed,
    EnsembleAssembled,
    Event,
    MemberTrained,
    RoundOpened,
    Searched,
    Selected,
    ShardScreened,
)
from opengnome.campaign.layout import Layout
from opengnome.campaign.shards import KEPT, shard_counts
from opengnome.crystals.io import read_table
from opengnome.errors import OpenGnomeError
from opengnome.models import CompositionalEnsemble, Ensemble
from opengnome.models.checkpoint import load_checkpoint
from opengnome.oracles import Calculation, read_calculation
from opengnome.oracles.store import FORMAT


class _LaterFormatError(OpenGnomeError):
    """A calculation of a format that this version does not know; computed results, so not taken for damage."""


class Fault(StrEnum):
    """What is wrong with a file."""

    MISSING = "missing"
    DAMAGED = "damaged"
    """It cannot be read as what it should be."""
    DIFFERENT = "different"
    """It can be read, and says something else than its event."""
    UNREACHABLE = "unreachable"
    """It may be whole, and we cannot read it: rights, a disk that fails, a later version's format."""
    UNWANTED = "unwanted"
    """It is whole, and the user asks for its work to be done again."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, in words."""

    fault: Fault
    text: str


@dataclass(frozen=True)
class Artefact:
    """A file (or the folder of an ensemble) that an event vouches for."""

    event: Event
    path: Path
    compare: Callable[[Path], str]
    """Reads it; how it differs from the event, empty when it does not."""

    def problem(self) -> Problem | None:
        """What is wrong with it; None when it is whole."""
        return problem_of(self.path, self.compare)


def problem_of(path: Path, compare: Callable[[Path], str]) -> Problem | None:
    """What is wrong with a file that `compare` reads."""
    try:
        if not path.exists():
            return Problem(Fault.MISSING, "is missing")
        difference = compare(path)
    except (OSError, pa.ArrowException, OpenGnomeError, KeyError, TypeError, ValueError) as error:
        may_be_whole = isinstance(error, _LaterFormatError) or _system_error(error) is not None
        return Problem(Fault.UNREACHABLE if may_be_whole else Fault.DAMAGED, f"cannot be read: {_brief(error, path)}")
    return Problem(Fault.DIFFERENT, difference) if difference else None


def artefacts_of(event: Event, layout: Layout) -> Iterator[Artefact]:
    """The files that `event` vouches for."""
    match event:
        case CampaignStarted(reference_ids=ids) if ids:
            yield Artefact(event, layout.references, partial(_has_ids, ids=frozenset(ids)))
        case Calculated():
            yield Artefact(event, layout.root / event.path, partial(_calculation, event=event))
        case RoundOpened():
            yield Artefact(event, layout.parents(event.round), partial(_has_rows, n=event.n_parents))
            yield Artefact(event, layout.training(event.round), partial(_has_rows, n=event.n_training))
            yield Artefact(event, layout.formulas(event.round), _formulas)
        case MemberTrained():
            yield Artefact(event, layout.root / event.path, readable_checkpoint)
        case EnsembleAssembled():
            yield Artefact(event, layout.root / event.path, partial(_ensemble, digest=event.digest))
        case ShardScreened():
            yield Artefact(event, layout.root / event.path, partial(_shard, event=event))
        case Selected():
            path = layout.root / event.path
            listed = "lowest_per_composition" if path == layout.kept(event.round) else "generated"  # older: all of them
            yield Artefact(event, path, partial(_has_rows, n=event.counts.get(listed)))
            ids = tuple(choice.candidate_id for choice in event.choices)
            yield Artefact(event, layout.chosen(event.round), partial(_has_ids, ids=frozenset(ids)))
        case CompositionsProposed():
            yield Artefact(event, layout.root / event.path, partial(_has_rows, n=event.counts.get("scored")))
            yield from _compositional_networks(event, layout)
        case Searched():
            yield Artefact(event, layout.root / event.path, partial(_has_rows, n=event.n_starts))
        case _:
            return


def _compositional_networks(event: CompositionsProposed, layout: Layout) -> Iterator[Artefact]:
    """What formulas were judged by, where that is there: rounds with few labels ask the shipped networks."""
    for path in sorted(layout.compositional(event.round).glob("members/*.safetensors")):
        yield Artefact(event, path, readable_checkpoint)
    ensemble = layout.compositional_ensemble(event.round)
    if ensemble.is_dir():
        yield Artefact(event, ensemble, _readable_compositional)


def runs_of(path: Path) -> list[str]:
    """Names of the calculations that a search's table lists; none where it cannot be read."""
    try:
        names: list[str] = pq.read_table(path, columns=["calculation"])["calculation"].to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return []
    return names


def readable_checkpoint(path: Path) -> str:
    """For a network that no event mentions: it has only to be readable."""
    load_checkpoint(path)
    return ""


def _readable_compositional(path: Path) -> str:
    """No event has its digest."""
    CompositionalEnsemble.load(path)
    return ""


def readable_calculation(path: Path) -> str:
    """For a calculation that no event mentions."""
    _calculation_in(path)
    return ""


def readable_table(path: Path) -> str:
    """For a table that no event mentions."""
    pq.ParquetFile(path).read()
    return ""


def _calculation_in(path: Path) -> Calculation:
    try:
        return read_calculation(path)
    except OpenGnomeError as error:
        found = _format_of(path)
        if found not in ("", FORMAT):
            raise _LaterFormatError(f"its format is {found!r}, this version of opengnome reads {FORMAT!r}") from error
        raise


def _format_of(path: Path) -> str:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return ""
    return metadata.get(b"format", b"").decode(errors="replace")


def _calculation(path: Path, event: Calculated) -> str:
    calculation = _calculation_in(path)
    energy = calculation.energy_per_atom
    told = {
        "status": (calculation.status.value, event.status),
        "formula": (calculation.initial.reduced_formula, event.reduced_formula),
        "energy per atom": (energy, event.energy_per_atom),
        "steps": (calculation.n_steps, event.n_steps),
    }
    return _differences(told)


def _ensemble(path: Path, digest: str) -> str:
    return _differences({"digest": (Ensemble.load(path).digest, digest)})


def _shard(path: Path, event: ShardScreened) -> str:
    n_rows = pq.ParquetFile(path).read().num_rows
    told: dict[str, tuple[object, object]] = {"counts": (shard_counts(path), event.counts)}
    if KEPT in event.counts:
        told["rows"] = (n_rows, event.counts[KEPT])
    return _differences(told)


def _has_rows(path: Path, n: int | None) -> str:
    n_rows = pq.ParquetFile(path).read().num_rows
    return "" if n is None else _differences({"rows": (n_rows, n)})


def _has_ids(path: Path, ids: frozenset[str]) -> str:
    found = set(read_table(path).ids)
    missing, more = sorted(ids - found), sorted(found - ids)
    parts = [f"lacks {len(missing)} crystals ({missing[0]}, ...)"] if missing else []
    parts += [f"has {len(more)} crystals that nobody chose ({more[0]}, ...)"] if more else []
    return " and ".join(parts)


def _formulas(path: Path) -> str:
    return "" if path.read_text(encoding="utf-8").endswith("\n") else "ends in the middle of a line"


def _differences(values: Mapping[str, tuple[object, object]]) -> str:
    """In words, where the file's value differs from the event's."""
    return ", ".join(
        f"has {name} {_short(in_file)}, its event says {_short(told)}"
        for name, (in_file, told) in values.items()
        if in_file != told and not (_is_nan(in_file) and _is_nan(told))
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _brief(error: BaseException, path: Path) -> str:
    """The message, without the path that the finding names anyway and without the remedy of those who delete."""
    return str(error).partition("; delete it")[0].replace(f"{path} is ", "").replace(str(path), path.name)


def _system_error(error: BaseException | None) -> OSError | None:
    """The refusal of the operating system behind an error; readers of damaged content raise without its number."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            return error
        error = error.__cause__
    return None
