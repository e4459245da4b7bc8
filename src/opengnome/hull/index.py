"""Entries grouped for hulls: by id, by composition (polymorphs), by chemical system."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from opengnome.errors import HullError
from opengnome.hull.entry import Entry

Stoichiometry = tuple[tuple[int, int], ...]
"""Counts of a reduced composition: (atomic number, amount) pairs sorted by atomic number."""

System = tuple[int, ...]
"""Atomic numbers of a chemical system, ascending."""


@dataclass(frozen=True)
class EntryIndex:
    """Entries of one level of theory, found by id, by stoichiometry and by chemical system.

    What does not change is shared between an index and those made from it by `with_entries`.
    """

    level: str
    entries: tuple[Entry, ...]
    by_id: dict[str, Entry]
    polymorphs: dict[Stoichiometry, tuple[Entry, ...]]
    """Entries of one stoichiometry, lowest corrected energy first, ties by id."""
    stoichiometries: dict[System, tuple[Stoichiometry, ...]]
    """What is known of a system itself, subsystems not included; sorted."""

    @classmethod
    def from_entries(cls, entries: Sequence[Entry]) -> "EntryIndex":
        """Raises `HullError` for no entries, several levels, a non-finite energy, or one id twice."""
        if not entries:
            raise HullError("a hull needs at least one entry, got none")
        return cls(entries[0].level, (), {}, {}, {}).with_entries(entries)[0]

    def with_entries(self, new: Sequence[Entry]) -> tuple["EntryIndex", set[System]]:
        """The index with further entries, and the systems in which a lowest energy changed.

        Raises `HullError` as `from_entries` does.
        """
        by_id = dict(self.by_id)
        grouped: dict[Stoichiometry, list[Entry]] = {}
        for entry in new:
            check_entry(entry, level=self.level)
            if entry.id in by_id:
                raise HullError(
                    f"two entries have the id {entry.id!r} ({by_id[entry.id].reduced_formula} and "
                    f"{entry.reduced_formula}); ids are unique within a hull: rename one or leave it out"
                )
            by_id[entry.id] = entry
            grouped.setdefault(entry.composition.reduced.counts, []).append(entry)
        polymorphs, stoichiometries = dict(self.polymorphs), dict(self.stoichiometries)
        touched: set[System] = set()
        added: dict[System, list[Stoichiometry]] = {}
        for counts, group in grouped.items():
            system = tuple(z for z, _ in counts)
            before = polymorphs.get(counts, ())
            polymorphs[counts] = after = tuple(sorted((*before, *group), key=_stability_order))
            if not before:
                added.setdefault(system, []).append(counts)
            if not before or after[0] is not before[0]:
                touched.add(system)
        for system, members in added.items():
            stoichiometries[system] = tuple(sorted((*stoichiometries.get(system, ()), *members)))
        index = EntryIndex(self.level, (*self.entries, *new), by_id, polymorphs, stoichiometries)
        return index, touched

    def subsystems(self, system: System) -> Iterator[System]:
        """The systems with entries inside `system`, itself included, fewer elements first."""
        if 2 ** len(system) <= len(self.stoichiometries):
            yield from (part for part in _subsets(system) if part in self.stoichiometries)
        else:
            elements = set(system)
            inside = (known for known in self.stoichiometries if elements.issuperset(known))
            yield from sorted(inside, key=lambda part: (len(part), part))

    def lowest_entries(self, system: System) -> list[Entry]:
        """The lowest entry of every stoichiometry inside `system`, in an order of compositions alone."""
        return [self.polymorphs[counts][0] for part in self.subsystems(system) for counts in self.stoichiometries[part]]


def check_entry(entry: Entry, *, level: str) -> None:
    """Raise `HullError` unless the entry is of this level and its energies are finite."""
    if entry.level != level:
        raise HullError(
            f"entry {entry.id!r} is of level {entry.level!r}, the hull of level {level!r}; energies of "
            "different levels cannot be compared: build one hull per level"
        )
    if not math.isfinite(entry.corrected_energy_per_atom):
        raise HullError(
            f"entry {entry.id!r} ({entry.reduced_formula}) has the energy {entry.energy_per_atom} and the "
            f"correction {entry.correction_per_atom} eV/atom; both must be finite: leave the entry out"
        )


def contains_any(system: System, parts: set[System]) -> bool:
    """Whether any of `parts` lies inside `system`."""
    if 2 ** len(system) <= len(parts):
        return any(part in parts for part in _subsets(system))
    elements = set(system)
    return any(elements.issuperset(part) for part in parts)


def _stability_order(entry: Entry) -> tuple[float, str]:
    return entry.corrected_energy_per_atom, entry.id


def _subsets(system: System) -> Iterable[System]:
    return (part for size in range(1, len(system) + 1) for part in combinations(system, size))
