"""Entries that a question about many is about, and the polymorphs that compete with each of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from opengnome.hull.composition_arrays import CompositionArrays
from opengnome.hull.entry import Entry, check_entry
from opengnome.hull.index import EntryIndex


@dataclass(frozen=True, eq=False)
class AskedEntries:
    """q entries, members of an index or not, and where the index has their like."""

    index: EntryIndex
    ids: Sequence[str]
    compositions: CompositionArrays
    energies: np.ndarray
    """(q,) corrected, eV/atom."""
    own: np.ndarray
    """(q,) stoichiometry in the index, -1 where there is none."""
    rows: np.ndarray
    """(q,) row of the table's entry of the same id, -1 where there is none."""

    @classmethod
    def members(cls, index: EntryIndex) -> "AskedEntries":
        """All entries of the index, in the order of its table."""
        table = index.table
        rows = np.arange(len(table))
        return cls(index, table.ids, table.compositions, table.energies, index.stoichiometry_of, rows)

    @classmethod
    def of(cls, index: EntryIndex, entries: Sequence[Entry]) -> "AskedEntries":
        """Raises `HullError` for another level or a non-finite energy."""
        for entry in entries:
            check_entry(entry, level=index.table.level)
        compositions = CompositionArrays.from_compositions([entry.composition for entry in entries])
        energies = np.array([entry.corrected_energy_per_atom for entry in entries], dtype=float)
        row_of_id = index.table.row_of_id
        rows = np.array([row_of_id.get(entry.id, -1) for entry in entries], dtype=int)
        return cls(index, [entry.id for entry in entries], compositions, energies, index.find(compositions), rows)

    @property
    def moved(self) -> list[int]:
        """Those whose id belongs to another stoichiometry in the index."""
        return np.flatnonzero((self.rows >= 0) & (self.index.stoichiometry_of[self.rows] != self.own)).tolist()

    def rivals(self, *, exclude_polymorphs: bool, without: Collection[str]) -> np.ndarray:
        """(q,) row of the lowest polymorph that competes with each entry, -1 where there is none.

        The entry of the same id does not compete, nor do those of the ids `without`; no polymorph does with
        `exclude_polymorphs`. The last form of a pure element is its own rival: it has nothing to decompose into.
        """
        index = self.index
        known = np.flatnonzero(self.own >= 0)
        own, start = self.own[known], index.polymorph_starts[self.own[known]]
        first = index.order[start]
        has_second = index.polymorph_starts[own + 1] - start > 1
        second = np.where(has_second, index.order[np.minimum(start + 1, len(index.order) - 1)], -1)
        is_pure = self.compositions.n_elements[known] == 1
        if exclude_polymorphs:
            found = np.where(is_pure, first, -1)
        else:
            is_itself = first == self.rows[known]
            found = np.where(is_itself & (has_second | ~is_pure), second, first)
        skipped = [index.table.row_of_id[name] for name in without if name in index.table.row_of_id]
        touched = np.isin(own, index.stoichiometry_of[skipped]) if skipped else np.zeros(len(own), dtype=bool)
        for i in np.flatnonzero(touched & (found >= 0)).tolist():
            left_out = set(without) if exclude_polymorphs else {*without, self.ids[known[i]]}
            found[i] = lowest_row(index, int(own[i]), left_out)
            if found[i] < 0 and is_pure[i]:
                found[i] = lowest_row(index, int(own[i]), without)
        rivals = np.full(len(self.own), -1)
        rivals[known] = found
        return rivals


def lowest_row(index: EntryIndex, stoichiometry: int, without: Collection[str]) -> int:
    """Row of the lowest polymorph whose id is not in `without`, -1 where none is left."""
    rows = index.polymorphs(stoichiometry).tolist()
    return next((row for row in rows if index.table.ids[row] not in without), -1)
