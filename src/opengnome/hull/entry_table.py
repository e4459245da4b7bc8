"""Entries of one level of theory as arrays: what a hull holds, however many there are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from opengnome.errors import HullError
from opengnome.hull.composition_arrays import CompositionArrays
from opengnome.hull.entry import Entry, check_entry


@dataclass(frozen=True, eq=False)
class EntryTable:
    """n entries, column by column; `Entry` objects are made when asked for."""

    level: str
    ids: tuple[str, ...]
    """Names, unique."""
    compositions: CompositionArrays
    energies_per_atom: np.ndarray
    """(n,) uncorrected, eV/atom."""
    corrections_per_atom: np.ndarray
    """(n,) added to the energy, eV/atom."""
    correction_schemes: str | tuple[str, ...]
    """Name of the scheme of each entry, or one for all."""
    sources: str | tuple[str, ...]
    """Where each entry comes from, or one for all."""
    given: tuple[Entry, ...] | None = None
    """The entries as objects where the table was made from them."""

    @classmethod
    def from_entries(cls, entries: Sequence[Entry], *, level: str | None = None) -> "EntryTable":
        """Raises `HullError` for several levels, a non-finite energy, or one id twice.

        `level` is that of the first entry when not given.
        """
        entries = tuple(entries)
        if level is None:
            level = entries[0].level if entries else ""
        schemes, sources = {e.correction_scheme for e in entries}, {e.source for e in entries}
        table = cls(
            level,
            tuple(e.id for e in entries),
            CompositionArrays.from_compositions([e.composition for e in entries]),
            np.array([e.energy_per_atom for e in entries], dtype=float),
            np.array([e.correction_per_atom for e in entries], dtype=float),
            schemes.pop() if len(schemes) == 1 else tuple(e.correction_scheme for e in entries),
            sources.pop() if len(sources) == 1 else tuple(e.source for e in entries),
            entries,
        )
        stray = next((e for e in entries if e.level != level), None)
        if stray is not None:
            check_entry(stray, level=level)
        table._check()
        return table

    @classmethod
    def from_arrays(
        cls,
        ids: Sequence[str],
        compositions: CompositionArrays,
        energies_per_atom: ArrayLike,
        *,
        level: str,
        corrections_per_atom: ArrayLike = 0.0,
        correction_scheme: str | Sequence[str] = "none",
        source: str | Sequence[str] = "",
    ) -> "EntryTable":
        """One entry per id; energies are raw, eV/atom, shape (n,); corrections are (n,) or one for all.

        Raises `HullError` for lengths that differ, a non-finite energy, or one id twice.
        """
        names = tuple(ids)
        energies = np.array(energies_per_atom, dtype=float)
        corrections = np.array(corrections_per_atom, dtype=float)
        texts = [text if isinstance(text, str) else tuple(text) for text in (correction_scheme, source)]
        lengths = [len(compositions), *energies.shape, *corrections.shape]
        lengths += [len(text) for text in texts if not isinstance(text, str)]
        if energies.ndim != 1 or corrections.ndim > 1 or any(length != len(names) for length in lengths):
            raise HullError(
                f"{len(names)} ids with {len(compositions)} compositions, energies of shape {energies.shape} and "
                f"corrections of shape {corrections.shape}; give one of each per id"
            )
        corrections = np.broadcast_to(corrections, energies.shape)
        table = cls(level, names, compositions, energies, corrections, texts[0], texts[1])
        table._check()
        return table

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def energies(self) -> np.ndarray:
        """(n,) corrected energies, eV/atom: what the hull uses."""
        return self.energies_per_atom + self.corrections_per_atom

    @cached_property
    def row_of_id(self) -> dict[str, int]:
        return dict(zip(self.ids, range(len(self)), strict=True))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All entries as objects; made on the first call when the table came from arrays."""
        return self.given if self.given is not None else tuple(self.entry(row) for row in range(len(self)))

    def entry(self, row: int) -> Entry:
        """One entry as an object."""
        if self.given is not None:
            return self.given[row]
        schemes, sources = self.correction_schemes, self.sources
        return Entry(
            self.ids[row],
            self.compositions[row],
            float(self.energies_per_atom[row]),
            correction_per_atom=float(self.corrections_per_atom[row]),
            correction_scheme=schemes if isinstance(schemes, str) else schemes[row],
            level=self.level,
            source=sources if isinstance(sources, str) else sources[row],
        )

    def extended(self, new: "EntryTable") -> "EntryTable":
        """The table followed by `new`. Raises `HullError` for another level or an id that is already there."""
        if new.level != self.level and len(new):
            check_entry(new.entry(0), level=self.level)
        row_of_id = self.row_of_id.copy()
        row_of_id.update(zip(new.ids, range(len(self), len(self) + len(new)), strict=True))
        if len(row_of_id) < len(self) + len(new):
            twice = next(row for row, entry_id in enumerate(new.ids) if entry_id in self.row_of_id)
            raise _two_of_one_id(self.entry(self.row_of_id[new.ids[twice]]), new.entry(twice))
        mine, theirs = self.compositions, new.compositions
        compositions = mine.insert(np.full(len(theirs), len(mine)), theirs)
        given = None if self.given is None or new.given is None else (*self.given, *new.given)
        table = EntryTable(
            self.level,
            (*self.ids, *new.ids),
            compositions,
            np.concatenate([self.energies_per_atom, new.energies_per_atom]),
            np.concatenate([self.corrections_per_atom, new.corrections_per_atom]),
            _joined(self.correction_schemes, len(self), new.correction_schemes, len(new)),
            _joined(self.sources, len(self), new.sources, len(new)),
            given,
        )
        table.__dict__["row_of_id"] = row_of_id  # as the cached property would compute it
        return table

    def _check(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self.energies))
        if len(bad):
            check_entry(self.entry(int(bad[0])), level=self.level)
        if len(self.row_of_id) < len(self):
            repeated = next(entry_id for entry_id, n in Counter(self.ids).items() if n > 1)
            first, second, *_ = (row for row, entry_id in enumerate(self.ids) if entry_id == repeated)
            raise _two_of_one_id(self.entry(first), self.entry(second))


def _two_of_one_id(one: Entry, other: Entry) -> HullError:
    return HullError(
        f"two entries have the id {one.id!r} ({one.reduced_formula} and {other.reduced_formula}) with the energies "
        f"{one.corrected_energy_per_atom:.6g} and {other.corrected_energy_per_atom:.6g} eV/atom; ids are unique "
        "within a hull: rename one or leave it out"
    )


def _joined(
    first: str | tuple[str, ...], n_first: int, second: str | tuple[str, ...], n_second: int
) -> str | tuple[str, ...]:
    if isinstance(first, str) and first == second:
        return first
    expanded = [(text,) * n if isinstance(text, str) else text for text, n in ((first, n_first), (second, n_second))]
    return (*expanded[0], *expanded[1])
