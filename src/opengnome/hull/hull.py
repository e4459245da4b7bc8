"""The hull of a set of entries: is a phase stable, by how much, and what does it decompose into?"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull.decomposition import LowerHull, lowest_mixture
from opengnome.hull.entry import Entry
from opengnome.hull.index import EntryIndex, System, check_entry, contains_any
from opengnome.hull.references import check_references, elemental_references, formation_energy_per_atom

STABILITY_TOLERANCE = 5e-5
"""Entries this close to the hull (eV/atom) count as stable, as in the GNoME paper."""

# Entries further above the hull than this (eV/atom) are not vertices: leaving them out changes nothing.
_VERTEX_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Decomposition:
    """The mixture of lowest energy at a composition, and that energy."""

    energy_per_atom: float
    """eV/atom, corrected, on the scale of the entries."""
    products: tuple[tuple[str, str, float], ...]
    """(entry id, reduced formula, atomic fraction), largest fraction first; fractions sum to one."""


class Hull:
    """Convex hulls of entries of one level of theory, over all chemical systems.

    Chemical systems are built when first asked about and kept. The answers do not depend on the order of
    the entries. All energies are corrected eV/atom. A hull never changes; `with_entries` makes a new one.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Raises `HullError` for no entries, several levels, a non-finite energy, or one id twice."""
        self._adopt(EntryIndex.from_entries(entries), {})

    def _adopt(self, index: EntryIndex, systems: dict[System, tuple[list[Entry], LowerHull]]) -> None:
        self._index = index
        self._systems = systems

    def __len__(self) -> int:
        return len(self._index.entries)

    def __contains__(self, entry: object) -> bool:
        return isinstance(entry, Entry) and self._index.by_id.get(entry.id) == entry

    @property
    def level(self) -> str:
        """Level of theory of all entries."""
        return self._index.level

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order they were given."""
        return self._index.entries

    @cached_property
    def digest(self) -> str:
        """Names this snapshot: sha256 of the level and of (id, composition, energy) sorted by id."""
        digest = hashlib.sha256(self.level.encode())
        for entry in sorted(self.entries, key=lambda entry: entry.id):
            digest.update(repr((entry.id, entry.composition.counts, entry.corrected_energy_per_atom)).encode())
        return digest.hexdigest()

    @cached_property
    def elemental_references(self) -> dict[int, float]:
        """Energy in eV/atom of the lowest entry of each pure element, by atomic number."""
        pure = (part for part in self._index.stoichiometries if len(part) == 1)
        return elemental_references(self._index.polymorphs[((z, 1),)][0] for (z,) in pure)

    def formation_energy_per_atom(self, composition: Composition, energy_per_atom: float) -> float:
        """Formation energy in eV/atom of a phase with this corrected energy.

        Raises `MissingReferenceError` naming the elements without a reference.
        """
        return formation_energy_per_atom(composition, energy_per_atom, self.elemental_references, level=self.level)

    def energy_per_atom_at(self, composition: Composition) -> float:
        """Energy of the hull at a composition, eV/atom. Raises `MissingReferenceError`."""
        _, lower_hull = self._system(composition.atomic_numbers)
        return float(lower_hull.energies_at(_fractions([composition]))[0])

    def decompose(self, composition: Composition, *, without: frozenset[str] = frozenset()) -> Decomposition:
        """The stable mixture at a composition, leaving out the entries whose ids are in `without`.

        Where several mixtures have the same energy, one is given, the same for any order of the entries.
        Raises `MissingReferenceError` when an element has no entry (left).
        """
        entries, lower_hull = self._system(composition.atomic_numbers)
        query = _fractions([composition])[0]
        if any(entry.id in without for entry in entries):
            entries, kept = self._replace(entries, without)
            check_references(composition.atomic_numbers, elemental_references(entries), level=self.level)
            energies = np.array([entry.corrected_energy_per_atom for entry in entries])
            mixture = lowest_mixture(lower_hull.fractions[kept], energies, query)
        else:
            mixture = lower_hull.mixture_at(query)
        products = [
            (entries[point].id, entries[point].reduced_formula, float(amount))
            for point, amount in zip(mixture.points, mixture.amounts, strict=True)
        ]
        products.sort(key=lambda product: (-product[2], product[0]))
        return Decomposition(mixture.energy_per_atom, tuple(products))

    def energy_above_hull(self, entry: Entry) -> float:
        """Signed distance to the hull in eV/atom; never below zero for a member.

        Raises `HullError` for another level or a non-finite energy, `MissingReferenceError`.
        """
        check_entry(entry, level=self.level)
        distance = entry.corrected_energy_per_atom - self.energy_per_atom_at(entry.composition)
        return max(distance, 0.0) if entry in self else distance

    def competing_decomposition(self, entry: Entry, *, exclude_polymorphs: bool = False) -> Decomposition:
        """What competes with `entry`: the decomposition on the hull without the entry of its id.

        With `exclude_polymorphs` all entries of its reduced composition are left out (the decomposition
        enthalpy of Bartel et al., doi:10.1038/s41524-020-00362-y). The last entry of a pure element stays:
        an element has nothing to decompose into.
        """
        check_entry(entry, level=self.level)
        without = {entry.id}
        same = self._index.polymorphs.get(entry.composition.reduced.counts, ())
        if exclude_polymorphs:
            without.update(polymorph.id for polymorph in same)
        if entry.composition.n_elements == 1 and all(polymorph.id in without for polymorph in same):
            without.clear()
        return self.decompose(entry.composition, without=frozenset(without))

    def decomposition_energy(self, entry: Entry, *, exclude_polymorphs: bool = False) -> float:
        """Distance in eV/atom to the hull without this entry; negative is the depth of stability.

        Arguments as for `competing_decomposition`. For an entry that is not on the hull this is its energy
        above the hull.
        """
        check_entry(entry, level=self.level)
        if not self._may_carry_hull(entry, exclude_polymorphs=exclude_polymorphs):
            return entry.corrected_energy_per_atom - self.energy_per_atom_at(entry.composition)
        competing = self.competing_decomposition(entry, exclude_polymorphs=exclude_polymorphs)
        return entry.corrected_energy_per_atom - competing.energy_per_atom

    def distances_from_hull(self, compositions: Sequence[Composition], energies_per_atom: ArrayLike) -> np.ndarray:
        """Signed distance of many energies to the hull, shape (n,), eV/atom; the bulk form.

        `energies_per_atom` (n,) are on the corrected scale of the entries; an energy that is NaN gives NaN.
        Raises `MissingReferenceError` naming all elements without a reference, `HullError` when the lengths
        differ.
        """
        energies = np.asarray(energies_per_atom, dtype=float)
        if energies.shape != (len(compositions),):
            raise HullError(f"{len(compositions)} compositions with energies of shape {energies.shape}; give one each")
        rows_of_system: dict[System, list[int]] = {}
        for row, composition in enumerate(compositions):
            rows_of_system.setdefault(composition.atomic_numbers, []).append(row)
        elements = {z for system in rows_of_system for z in system}
        check_references(elements, self.elemental_references, level=self.level)
        hull_energies = np.empty(len(energies))
        for system, rows in rows_of_system.items():
            _, lower_hull = self._system(system)
            hull_energies[rows] = lower_hull.energies_at(_fractions([compositions[row] for row in rows]))
        return energies - hull_energies

    def stable_entries(self, *, tolerance: float = STABILITY_TOLERANCE) -> tuple[Entry, ...]:
        """Entries at most `tolerance` eV/atom above the hull, polymorphs too, in the order of `entries`.

        Entries with an element that has no reference are not answerable and raise `MissingReferenceError`.
        """
        distances = self.distances_from_hull(
            [entry.composition for entry in self.entries],
            [entry.corrected_energy_per_atom for entry in self.entries],
        )
        return tuple(e for e, distance in zip(self.entries, distances, strict=True) if distance <= tolerance)

    def with_entries(self, new: Sequence[Entry]) -> "Hull":
        """The hull with further entries; systems in which no lowest energy changed are kept as built.

        Raises `HullError` for another level, a non-finite energy, or an id that is already there.
        """
        index, touched = self._index.with_entries(new)
        kept = {s: built for s, built in self._systems.items() if not contains_any(s, touched)}
        hull = Hull.__new__(Hull)
        hull._adopt(index, kept)
        return hull

    def _system(self, system: System) -> tuple[list[Entry], LowerHull]:
        """The lowest entry per stoichiometry of a system, and the hull over them; built once."""
        if system not in self._systems:
            check_references(system, self.elemental_references, level=self.level)
            entries = self._index.lowest_entries(system)
            energies = np.array([entry.corrected_energy_per_atom for entry in entries])
            fractions = _fractions([entry.composition for entry in entries], system)
            self._systems[system] = entries, LowerHull(fractions, energies)
        return self._systems[system]

    def _replace(self, entries: list[Entry], without: frozenset[str]) -> tuple[list[Entry], np.ndarray]:
        """Entries with those of `without` replaced by their next polymorph, and the rows that remain."""
        replaced, kept = [], []
        for row, entry in enumerate(entries):
            polymorphs = self._index.polymorphs[entry.composition.reduced.counts]
            lowest = next((p for p in polymorphs if p.id not in without), None)
            if lowest is not None:
                replaced.append(lowest)
                kept.append(row)
        return replaced, np.array(kept, dtype=int)

    def _may_carry_hull(self, entry: Entry, *, exclude_polymorphs: bool) -> bool:
        """Whether what `decomposition_energy` leaves out can change the hull at the composition."""
        left_out = self._index.by_id.get(entry.id)
        if left_out is not None and left_out.composition.reduced != entry.composition.reduced:
            return True  # the same id at another composition: no shortcut
        polymorphs = self._index.polymorphs.get(entry.composition.reduced.counts, ())
        if not polymorphs or not (exclude_polymorphs or polymorphs[0].id == entry.id):
            return False
        lowest = polymorphs[0].corrected_energy_per_atom
        return lowest - self.energy_per_atom_at(entry.composition) < _VERTEX_TOLERANCE


def _fractions(compositions: Sequence[Composition], system: System | None = None) -> np.ndarray:
    """Atomic fractions (n, k) over `system`, by default that of the first composition."""
    columns = {z: column for column, z in enumerate(system or compositions[0].atomic_numbers)}
    fractions = np.zeros((len(compositions), len(columns)))
    for row, composition in enumerate(compositions):
        for z, count in composition.counts:
            fractions[row, columns[z]] = count
    return fractions / fractions.sum(axis=1, keepdims=True)
