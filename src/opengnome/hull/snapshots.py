"""Named snapshots of what is known: distances against each, what a discovery displaced, and recomputed energies.

A snapshot is a `Hull` under a name (``MP``, ``MP+OQMD``, ``all``); its `Hull.digest` says which one exactly.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from opengnome.errors import HullError
from opengnome.hull.composition_arrays import CompositionArrays
from opengnome.hull.entry import Entry
from opengnome.hull.entry_table import EntryTable
from opengnome.hull.hull import STABILITY_TOLERANCE, Decomposition, Hull


@dataclass(frozen=True)
class SnapshotDistances:
    """Distances of n entries to the hulls of s snapshots."""

    names: tuple[str, ...]
    """Names of the snapshots, in the order of the columns."""
    distances: np.ndarray
    """(n, s) eV/atom; negative: below the hull of the snapshot, never so for a member. NaN: see `reasons`."""
    reasons: tuple[tuple[str, ...], ...]
    """n tuples of s texts: why there is no distance; empty where there is one."""

    def column(self, name: str) -> np.ndarray:
        """Distances (n,) to the hull of one snapshot."""
        return self.distances[:, self.names.index(name)]


@dataclass(frozen=True)
class Displacement:
    """A formerly stable entry that is no longer stable."""

    entry: Entry
    """As it is in the newer snapshot where it is there too, else as it was."""
    distance_before: float
    """To the older hull, eV/atom; at most the tolerance."""
    distance_after: float
    """To the newer hull, eV/atom; above the tolerance."""
    decomposition: Decomposition
    """What it decomposes into on the newer hull."""
    displaced_by: tuple[str, ...]
    """Ids of the products that are new, or have a new energy, in the newer snapshot; largest fraction first.
    Empty when only the energy of the entry itself has risen."""


# Sets of elements as two words of 60 bits each, indexed by atomic number.
_ELEMENT_BITS = tuple(
    np.array([1 << (z - first) if first <= z < first + 60 else 0 for z in range(MAX_ATOMIC_NUMBER + 1)])
    for first in (0, 60)
)

Kept = Literal["old", "recomputed", "none"]


@dataclass(frozen=True)
class MergeChoice:
    """What the rule min(old, recomputed) did with one id."""

    id: str
    kept: Kept
    old_energy_per_atom: float
    """Corrected, eV/atom; NaN where there is no usable one."""
    recomputed_energy_per_atom: float
    """Corrected, eV/atom; NaN where there is no usable one."""
    reason: str
    """What was wrong with the energies that were left out; empty when nothing was."""


@dataclass(frozen=True)
class MergedSnapshot:
    """The entries that are left, and a record of every id that went in."""

    entries: tuple[Entry, ...]
    choices: tuple[MergeChoice, ...]
    """In the order of first appearance, old entries first."""


def snapshot_distances(snapshots: Mapping[str, Hull], entries: Sequence[Entry]) -> SnapshotDistances:
    """Signed distances of entries to the hulls of named snapshots, as the distance columns of the GNoME release.

    The distance of `Hull.energy_above_hull`. An entry that a snapshot cannot answer (another level, an energy that is
    not finite, an element without a reference) has NaN there and a reason; it stops no other.
    """
    distances = np.full((len(entries), len(snapshots)), np.nan)
    reasons: list[list[str]] = []
    for column, hull in enumerate(snapshots.values()):
        answers = [_unanswerable(hull, entry) for entry in entries]
        reasons.append(answers)
        rows = [row for row, reason in enumerate(answers) if not reason]
        if rows:
            asked = [entries[row] for row in rows]
            distances[rows, column] = _distances(hull, asked)
    by_entry = tuple(zip(*reasons, strict=True)) if snapshots else ((),) * len(entries)
    return SnapshotDistances(tuple(snapshots), distances, by_entry)


def displaced_entries(before: Hull, after: Hull, *, tolerance: float = STABILITY_TOLERANCE) -> tuple[Displacement, ...]:
    """Entries at most `tolerance` eV/atom above the hull of `before` and further above that of `after`.

    For the effect of discoveries `after` is ``before.with_entries(discoveries)``. An entry whose energy was
    recomputed (same id and stoichiometry in both) is judged by its energy in each. Only systems that hold something
    new are looked at; entries with an element that either snapshot has no reference for are not stable in it and
    cannot be displaced. In the order of `before.entries`. Raises `HullError` when the levels differ.
    """
    if before.level != after.level:
        raise HullError(f"snapshots of levels {before.level!r} and {after.level!r} cannot be compared; use one level")
    then, now = before.table, after.table
    same_id = np.array([now.row_of_id.get(entry_id, -1) for entry_id in then.ids])  # (n,) rows of `now`
    matched = np.flatnonzero(same_id >= 0)
    other = ~then.compositions.reduced.same_rows(matched, now.compositions.reduced, same_id[matched])
    same_id[matched[other]] = -1  # another composition is another material, whatever its id
    kept = np.flatnonzero(same_id >= 0)
    kept = kept[then.energies[kept] == now.energies[same_id[kept]]]
    gone, new = np.ones(len(then), dtype=bool), np.ones(len(now), dtype=bool)
    gone[kept] = new[same_id[kept]] = False
    changed = {
        composition.atomic_numbers for table, rows in ((then, gone), (now, new)) for composition in _some(table, rows)
    }
    touched = _holds_any(then.compositions, changed)
    suspects = np.flatnonzero(touched & _answerable(before, then.compositions) & _answerable(after, then.compositions))
    if not len(suspects):
        return ()
    distances_before = before.distances_from_hull(then.compositions.take(suspects), then.energies[suspects])
    stable = np.flatnonzero(distances_before <= tolerance)
    judged = [now.entry(same_id[row]) if same_id[row] >= 0 else then.entry(row) for row in suspects[stable].tolist()]
    distances_after = _distances(after, judged)
    displaced = []
    for i in np.flatnonzero(distances_after > tolerance).tolist():
        products = after.decompose(judged[i].composition)
        by = tuple(entry_id for entry_id, _, _ in products.products if new[now.row_of_id[entry_id]])
        distance = max(float(distances_before[stable[i]]), 0.0)
        displaced.append(Displacement(judged[i], distance, float(distances_after[i]), products, by))
    return tuple(displaced)


def merge_recomputed(old: Sequence[Entry], recomputed: Sequence[Entry]) -> MergedSnapshot:
    """The snapshot in which every material has the lower of its old and its recomputed energy.

    The consistency rule of GNoME (Merchant et al., doi:10.1038/s41586-023-06735-9): materials are matched by id,
    corrected energies compared, a tie keeps the old entry; several recomputations of one id compete alike. An id
    known from one side only is kept as it is. An energy that is not finite, a level other than that of the first
    entry, or a recomputation that ended at another composition is left out with a reason, and the other energy of
    the id stands; several old energies of one id are such a reason for all but the lowest.
    """
    groups: dict[str, tuple[list[Entry], list[Entry]]] = {}
    for side, entries in enumerate((old, recomputed)):
        for entry in entries:
            groups.setdefault(entry.id, ([], []))[side].append(entry)
    level = next((entry.level for entry in chain(old, recomputed)), "")
    kept: list[Entry] = []
    choices = []
    for entry_id, (before, again) in groups.items():
        reasons: list[str] = []
        old_entry = _lowest(_usable(before, level, None, "old", reasons))
        if old_entry is not None and len(before) > 1:
            reasons.append(f"{len(before)} old energies; the lowest stands")
        new_entry = _lowest(_usable(again, level, old_entry or next(iter(before), None), "recomputed", reasons))
        chosen = min((e for e in (old_entry, new_entry) if e is not None), key=_energy, default=None)
        if chosen is not None:
            kept.append(chosen)
        which: Kept = "none" if chosen is None else "old" if chosen is old_entry else "recomputed"
        old_energy, new_energy = (math.nan if entry is None else _energy(entry) for entry in (old_entry, new_entry))
        choices.append(MergeChoice(entry_id, which, old_energy, new_energy, "; ".join(reasons)))
    return MergedSnapshot(tuple(kept), tuple(choices))


def _usable(entries: Sequence[Entry], level: str, like: Entry | None, side: str, reasons: list[str]) -> list[Entry]:
    """The entries that can be compared; what is wrong with the others is added to `reasons`."""
    usable = []
    for entry in entries:
        if not math.isfinite(_energy(entry)):
            reasons.append(f"the {side} energy is {_energy(entry)} eV/atom")
        elif entry.level != level:
            reasons.append(f"the {side} energy is of level {entry.level!r}, not {level!r}")
        elif like is not None and entry.composition.reduced != like.composition.reduced:
            reasons.append(f"the {side} calculation is of {entry.reduced_formula}, not {like.reduced_formula}")
        else:
            usable.append(entry)
    return usable


def _lowest(entries: Sequence[Entry]) -> Entry | None:
    return min(entries, key=_energy, default=None)


def _energy(entry: Entry) -> float:
    return entry.corrected_energy_per_atom


def _distances(hull: Hull, entries: Sequence[Entry]) -> np.ndarray:
    """Distances (n,) of answerable entries, eV/atom; never below zero for members."""
    compositions, energies = [entry.composition for entry in entries], [_energy(entry) for entry in entries]
    distances = hull.distances_from_hull(compositions, energies)
    members = np.array([entry in hull for entry in entries], dtype=bool)
    return np.where(members, np.maximum(distances, 0.0), distances)


def _unanswerable(hull: Hull, entry: Entry) -> str:
    """Why a hull has no distance for an entry; empty when it has."""
    if entry.level != hull.level:
        return f"level {entry.level!r}, the snapshot has {hull.level!r}"
    if not math.isfinite(_energy(entry)):
        return f"energy {_energy(entry)} eV/atom"
    missing = [SYMBOLS[z] for z in entry.composition.atomic_numbers if z not in hull.elemental_references]
    return f"no elemental reference for {', '.join(missing)}" if missing else ""


def _answerable(hull: Hull, compositions: CompositionArrays) -> np.ndarray:
    """Whether a hull has a reference for every element of each composition, (n,)."""
    missing = np.ones(MAX_ATOMIC_NUMBER + 1, dtype=bool)
    missing[list(hull.elemental_references)] = False
    return compositions.sums(missing[compositions.atomic_numbers].astype(int)) == 0


def _holds_any(compositions: CompositionArrays, systems: Iterable[tuple[int, ...]]) -> np.ndarray:
    """Whether each composition holds all elements of any of `systems`, (n,)."""
    holds = np.zeros(len(compositions), dtype=bool)
    low, high = (compositions.sums(bits[compositions.atomic_numbers]) for bits in _ELEMENT_BITS)
    for system in systems:
        wanted_low, wanted_high = (bits[list(system)].sum() for bits in _ELEMENT_BITS)
        holds |= ((low & wanted_low) == wanted_low) & ((high & wanted_high) == wanted_high)
    return holds


def _some(table: EntryTable, rows: np.ndarray) -> CompositionArrays:
    return table.compositions.take(np.flatnonzero(rows))
