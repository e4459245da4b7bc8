"""The hull of a set of entries: is a phase stable, by how much, and what does it decompose into?"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals import Composition
from opengnome.errors import HullError
from opengnome.hull.asked import AskedEntries, lowest_row
from opengnome.hull.competition import Competitors, unique_rows
from opengnome.hull.composition_arrays import CompositionArrays, ranges
from opengnome.hull.decomposition import LowerHull, lowest_mixture
from opengnome.hull.entry import Entry, check_entry
from opengnome.hull.entry_table import EntryTable
from opengnome.hull.index import EntryIndex, System, contains_any
from opengnome.hull.references import check_references, formation_energy_per_atom

STABILITY_TOLERANCE = 5e-5
"""Entries this close to the hull (eV/atom) count as stable, as in the GNoME paper."""

# Entries further above the hull than this (eV/atom) are not vertices: leaving them out changes nothing.
_VERTEX_TOLERANCE = 1e-7

# Systems of at most this many elements that are asked about this often at once are answered by their facets.
# Measured: facets cost 0.4 to 1 ms a system and 0.1 us a composition, the linear programs 5 to 20 us a composition.
_FACETS_FROM = 50
_FACETS_MAX_ELEMENTS = 5


@dataclass(frozen=True)
class Decomposition:
    """The mixture of lowest energy at a composition, and that energy."""

    energy_per_atom: float
    """eV/atom, corrected, on the scale of the entries."""
    products: tuple[tuple[str, str, float], ...]
    """(entry id, reduced formula, atomic fraction), largest fraction first; fractions sum to one."""


class Hull:
    """Convex hulls of entries of one level of theory, over all chemical systems.

    The entries are held as arrays (`table`), whatever their number; nothing is built before a question is
    asked. Questions about one composition build the hull of its chemical system (`LowerHull`) and keep it;
    questions about many solve one small linear program per composition, in batches. The two ways agree to
    1e-9 eV/atom. The answers do not depend on the order of the entries. All energies are corrected
    eV/atom. A hull never changes; `with_entries` makes a new one.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Raises `HullError` for no entries, several levels, a non-finite energy, or one id twice."""
        self._adopt(EntryIndex.from_table(_not_empty(EntryTable.from_entries(entries))), {})

    @classmethod
    def from_table(cls, table: EntryTable) -> "Hull":
        """The hull of entries that are arrays already. Raises `HullError` for none."""
        hull = cls.__new__(cls)
        hull._adopt(EntryIndex.from_table(_not_empty(table)), {})
        return hull

    def _adopt(self, index: EntryIndex, systems: dict[System, tuple[np.ndarray, LowerHull]]) -> None:
        self._index = index
        self._systems = systems
        # What competes with each stoichiometry, eV/atom; NaN until asked for.
        self._competing = np.full(index.n_stoichiometries, np.nan)
        self._formulas: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, entry: object) -> bool:
        if not isinstance(entry, Entry):
            return False
        row = self.table.row_of_id.get(entry.id)
        return row is not None and self.table.entry(row) == entry

    @property
    def table(self) -> EntryTable:
        """All entries as arrays, in the order they were given."""
        return self._index.table

    @property
    def n_systems(self) -> int:
        """Number of chemical systems that have entries of their own."""
        return self._index.n_systems

    @property
    def level(self) -> str:
        """Level of theory of all entries."""
        return self.table.level

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order they were given."""
        return self.table.entries

    @cached_property
    def digest(self) -> str:
        """Names this snapshot: sha256 of the level and of (id, composition, energy) sorted by id."""
        digest = hashlib.sha256(self.level.encode())
        table, energies = self.table, self.table.energies.tolist()
        for row in sorted(range(len(table)), key=table.ids.__getitem__):
            digest.update(repr((table.ids[row], table.compositions.pairs(row), energies[row])).encode())
        return digest.hexdigest()

    @cached_property
    def elemental_references(self) -> dict[int, float]:
        """Energy in eV/atom of the lowest entry of each pure element, by atomic number."""
        references = self._competitors.references
        return {z: float(references[z]) for z in np.flatnonzero(np.isfinite(references)).tolist()}

    def formation_energy_per_atom(self, composition: Composition, energy_per_atom: float) -> float:
        """Formation energy in eV/atom of a phase with this corrected energy.

        Raises `MissingReferenceError` naming the elements without a reference.
        """
        return formation_energy_per_atom(composition, energy_per_atom, self.elemental_references, level=self.level)

    def formation_energies(
        self, compositions: Sequence[Composition] | CompositionArrays, energies_per_atom: ArrayLike
    ) -> np.ndarray:
        """`formation_energy_per_atom` of many phases, shape (n,), eV/atom. Raises `MissingReferenceError`."""
        arrays = _arrays(compositions)
        self._check_references(arrays, self._competitors)
        return np.asarray(energies_per_atom, dtype=float) - arrays.means(self._competitors.references)

    def energy_per_atom_at(self, composition: Composition) -> float:
        """Energy of the hull at a composition, eV/atom. Raises `MissingReferenceError`."""
        _, lower_hull = self._system(composition.atomic_numbers)
        return float(lower_hull.energies_at(_fractions(composition)[None])[0])

    def decompose(self, composition: Composition, *, without: frozenset[str] = frozenset()) -> Decomposition:
        """The stable mixture at a composition, leaving out the entries whose ids are in `without`.

        Where several mixtures have the same energy, one is given, the same for any order of the entries.
        Raises `MissingReferenceError` when an element has no entry (left).
        """
        rows, lower_hull = self._system(composition.atomic_numbers)
        query = _fractions(composition)
        if any(self.table.ids[row] in without for row in rows.tolist()):
            rows, kept = self._replace(rows, without)
            left = self.table.compositions.take(rows[self.table.compositions.n_elements[rows] == 1])
            check_references(composition.atomic_numbers, left.atomic_numbers.tolist(), level=self.level)
            mixture = lowest_mixture(lower_hull.fractions[kept], self.table.energies[rows], query)
        else:
            mixture = lower_hull.mixture_at(query)
        return self._decomposition(mixture.energy_per_atom, rows[mixture.points].tolist(), mixture.amounts.tolist())

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
        without = self._left_out(entry.id, entry.composition, exclude_polymorphs=exclude_polymorphs)
        return self.decompose(entry.composition, without=without)

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

    def energies_above_hull(self, *, workers: int = 1) -> np.ndarray:
        """Distance of every entry to the hull, shape (n,), eV/atom, never below zero; the bulk form.

        `workers` threads share the chemical systems; the answers do not depend on it. Raises
        `MissingReferenceError` naming all elements without a reference.
        """
        hull_energies = np.minimum(self._all_competing(workers=workers), self._index.lowest)
        return np.maximum(self.table.energies - hull_energies[self._index.stoichiometry_of], 0.0)

    def decomposition_energies(
        self,
        entries: Sequence[Entry] | None = None,
        *,
        exclude_polymorphs: bool = False,
        without: Collection[str] = (),
        workers: int = 1,
    ) -> np.ndarray:
        """`decomposition_energy` of many entries at once, by default of all entries of the hull, shape (n,).

        `without` are ids of further entries that are left out for all. `workers` as for `energies_above_hull`.
        Raises `HullError` for another level or a non-finite energy, `MissingReferenceError`.
        """
        index = self._index
        asked = AskedEntries.members(index) if entries is None else AskedEntries.of(index, entries)
        competitors = self._competitors_without(without)
        if entries is None and competitors is self._competitors:
            best = self._all_competing(workers=workers)[asked.own]
        else:
            best = self._competing_energies(asked.compositions, asked.own, competitors, workers=workers)
        rivals = asked.rivals(exclude_polymorphs=exclude_polymorphs, without=without)
        there = rivals >= 0
        best[there] = np.minimum(best[there], self.table.energies[rivals[there]])
        for i in asked.moved:
            composition = asked.compositions[i]
            left_out = self._left_out(asked.ids[i], composition, exclude_polymorphs=exclude_polymorphs, without=without)
            best[i] = self.decompose(composition, without=left_out).energy_per_atom
        return asked.energies - best

    def competing_decompositions(self, entries: Sequence[Entry], *, workers: int = 1) -> list[Decomposition]:
        """`competing_decomposition` of many entries at once; where mixtures tie the two may differ.

        Raises as `decomposition_energies` does.
        """
        asked = AskedEntries.of(self._index, entries)
        competitors = self._competitors_without(())
        self._check_references(asked.compositions, competitors)
        competition = competitors.compete(asked.compositions, asked.own, workers=workers)
        known = asked.own >= 0
        self._competing[asked.own[known]] = competition.energies[known]
        rivals = asked.rivals(exclude_polymorphs=False, without=())
        alone = (rivals >= 0) & (self.table.energies[rivals] <= competition.energies)
        energies = np.where(alone, self.table.energies[rivals], competition.energies).tolist()
        lowest_rows = self._index.order[self._index.polymorph_starts[:-1]]
        mixed = np.where(competition.points >= 0, lowest_rows[competition.points], -1)
        decompositions = []
        for rival, is_alone, energy, rows, amounts in zip(
            rivals.tolist(), alone.tolist(), energies, mixed.tolist(), competition.amounts.tolist(), strict=True
        ):
            if is_alone:
                rows, amounts = [rival], [1.0]
            used = [place for place, row in enumerate(rows) if row >= 0]
            products = [rows[place] for place in used], [amounts[place] for place in used]
            decompositions.append(self._decomposition(energy, *products))
        for i in asked.moved:
            decompositions[i] = self.competing_decomposition(entries[i])
        return decompositions

    def distances_from_hull(
        self,
        compositions: Sequence[Composition] | CompositionArrays,
        energies_per_atom: ArrayLike,
        *,
        workers: int = 1,
    ) -> np.ndarray:
        """Signed distance of many energies to the hull, shape (n,), eV/atom; the bulk form.

        `energies_per_atom` (n,) are on the corrected scale of the entries; an energy that is NaN gives NaN.
        `workers` as for `energies_above_hull`. Raises `MissingReferenceError` naming all elements without a
        reference, `HullError` when the lengths differ.
        """
        energies = np.asarray(energies_per_atom, dtype=float)
        if energies.shape != (len(compositions),):
            raise HullError(f"{len(compositions)} compositions with energies of shape {energies.shape}; give one each")
        return energies - self.energies_per_atom_at(compositions, workers=workers)

    def energies_per_atom_at(
        self, compositions: Sequence[Composition] | CompositionArrays, *, workers: int = 1
    ) -> np.ndarray:
        """Energy of the hull at many compositions, shape (n,), eV/atom. Raises `MissingReferenceError`."""
        arrays = _arrays(compositions)
        self._check_references(arrays, self._competitors)
        own = self._index.find(arrays)
        lowest = np.where(own >= 0, self._index.lowest[own], np.inf)
        energies = np.where(own >= 0, self._competing[own], np.nan)
        energies = self._energies_by_facets(arrays, energies)
        left = np.flatnonzero(np.isnan(energies))
        if len(left):
            energies[left] = self._competing_energies(arrays.take(left), own[left], self._competitors, workers=workers)
        return np.minimum(energies, lowest)

    def stable_entries(self, *, tolerance: float = STABILITY_TOLERANCE) -> tuple[Entry, ...]:
        """Entries at most `tolerance` eV/atom above the hull, polymorphs too, in the order of `entries`.

        Entries with an element that has no reference are not answerable and raise `MissingReferenceError`.
        """
        return tuple(self.table.entry(row) for row in np.flatnonzero(self.energies_above_hull() <= tolerance).tolist())

    def with_entries(self, new: Sequence[Entry] | EntryTable) -> "Hull":
        """The hull with further entries; systems in which no lowest entry changed keep what they know.

        Raises `HullError` for another level, a non-finite energy, or an id that is already there.
        """
        addition = new if isinstance(new, EntryTable) else EntryTable.from_entries(new, level=self.level)
        index, moved, touched = self._index.extended(addition)
        kept = {system: built for system, built in self._systems.items() if not contains_any(system, touched)}
        hull = Hull.__new__(Hull)
        hull._adopt(index, kept)
        if not np.isnan(self._competing).all():
            hull._competing[moved] = self._competing
            hull._competing[index.containing(list(touched))[index.system_of]] = np.nan
        return hull

    @cached_property
    def _competitors(self) -> Competitors:
        return Competitors(self._index, self._index.lowest)

    def _energies_by_facets(self, compositions: CompositionArrays, energies: np.ndarray) -> np.ndarray:
        """(q,) `energies`, where NaN and in a system asked about so often that its facets pay: of the hull."""
        energies = energies.copy()
        for k in range(2, _FACETS_MAX_ELEMENTS + 1):
            rows = np.flatnonzero((compositions.n_elements == k) & np.isnan(energies))
            if len(rows) < _FACETS_FROM:
                continue
            flat = compositions.starts[rows][:, None] + np.arange(k)
            systems, system_of = unique_rows(compositions.atomic_numbers[flat])
            for number in np.flatnonzero(np.bincount(system_of) >= _FACETS_FROM).tolist():
                _, lower_hull = self._system(tuple(systems[number].tolist()))
                if lower_hull.facets is not None:
                    asked = np.flatnonzero(system_of == number)
                    energies[rows[asked]] = lower_hull.energies_at(compositions.fractions[flat[asked]])
        return energies

    def _all_competing(self, *, workers: int) -> np.ndarray:
        """(s,) what competes with every stoichiometry, eV/atom."""
        if np.isnan(self._competing).any():
            self._check_references(self._index.stoichiometries, self._competitors)
            self._competing[:] = self._competitors.compete_all(self._competing, workers=workers)
        return self._competing

    def _competing_energies(
        self, compositions: CompositionArrays, own: np.ndarray, competitors: Competitors, *, workers: int
    ) -> np.ndarray:
        """(q,) energy of the lowest mixture of other stoichiometries, eV/atom; kept for those of the hull."""
        self._check_references(compositions, competitors)
        if competitors is not self._competitors:
            return competitors.compete(compositions, own, workers=workers).energies
        energies = np.where(own >= 0, self._competing[own], np.nan)
        unknown = np.flatnonzero(np.isnan(energies))
        if len(unknown):
            part = compositions if len(unknown) == len(compositions) else compositions.take(unknown)
            energies[unknown] = competitors.compete(part, own[unknown], workers=workers).energies
            known = unknown[own[unknown] >= 0]
            self._competing[own[known]] = energies[known]
        return energies

    def _competitors_without(self, without: Collection[str]) -> Competitors:
        """The competitors when the entries of these ids are left out."""
        rows = [self.table.row_of_id[entry_id] for entry_id in without if entry_id in self.table.row_of_id]
        if not rows:
            return self._competitors
        lowest = self._index.lowest.copy()
        for number in np.unique(self._index.stoichiometry_of[rows]).tolist():
            row = lowest_row(self._index, number, without)
            lowest[number] = np.inf if row < 0 else self.table.energies[row]
        return Competitors(self._index, lowest)

    def _left_out(
        self, entry_id: str, composition: Composition, *, exclude_polymorphs: bool, without: Collection[str] = ()
    ) -> frozenset[str]:
        """Ids that do not compete with the entry of this id; the last form of a pure element does."""
        same = {self.table.ids[row] for row in self._polymorphs(composition).tolist()}
        left_out = {entry_id, *without} | (same if exclude_polymorphs else set())
        is_last = composition.n_elements == 1 and same <= left_out
        return frozenset(without if is_last else left_out)

    def _polymorphs(self, composition: Composition) -> np.ndarray:
        """Rows of the entries of the same stoichiometry, the lowest first."""
        own = int(self._index.find(CompositionArrays.from_compositions([composition]))[0])
        return self._index.polymorphs(own) if own >= 0 else np.empty(0, dtype=int)

    def _check_references(self, compositions: CompositionArrays, competitors: Competitors) -> None:
        asked = np.unique(compositions.atomic_numbers)
        known = np.flatnonzero(competitors.elements >= 0)
        check_references(asked.tolist(), known.tolist(), level=self.level)

    def _decomposition(self, energy: float, rows: Sequence[int], amounts: Sequence[float]) -> Decomposition:
        ids = self.table.ids
        products = [(ids[row], self._formula(row), float(a)) for row, a in zip(rows, amounts, strict=True)]
        # Equal amounts go by id, whatever their last digits.
        products.sort(key=lambda product: (-round(product[2], 10), product[0]))
        return Decomposition(float(energy), tuple(products))

    def _formula(self, row: int) -> str:
        """Reduced formula of an entry, kept."""
        formula = self._formulas.get(row)
        if formula is None:
            self._formulas[row] = formula = self.table.compositions[row].reduced_formula
        return formula

    def _system(self, system: System) -> tuple[np.ndarray, LowerHull]:
        """Rows of the lowest entry per stoichiometry of a system, and the hull over them; built once."""
        if system not in self._systems:
            check_references(system, self.elemental_references, level=self.level)
            index = self._index
            _, inside = index.subsystems(np.array([system]))
            first, stop = index.system_starts[inside], index.system_starts[inside + 1]
            stoichiometries = ranges(first, stop - first)
            fractions = index.stoichiometries.take(stoichiometries).dense(system)
            rows = index.order[index.polymorph_starts[stoichiometries]]
            self._systems[system] = rows, LowerHull(fractions, index.lowest[stoichiometries])
        return self._systems[system]

    def _replace(self, rows: np.ndarray, without: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows with those of `without` replaced by their next polymorph, and which places remain."""
        numbers = self._index.stoichiometry_of[rows].tolist()
        lowest = np.array([lowest_row(self._index, number, without) for number in numbers])
        kept = np.flatnonzero(lowest >= 0)
        return lowest[kept], kept

    def _may_carry_hull(self, entry: Entry, *, exclude_polymorphs: bool) -> bool:
        """Whether what `decomposition_energy` leaves out can change the hull at the composition."""
        polymorphs = self._polymorphs(entry.composition).tolist()
        row = self.table.row_of_id.get(entry.id)
        if row is not None and row not in polymorphs:
            return True  # the same id at another composition: no shortcut
        if not polymorphs or not (exclude_polymorphs or polymorphs[0] == row):
            return False
        lowest = self.table.energies[polymorphs[0]]
        return bool(lowest - self.energy_per_atom_at(entry.composition) < _VERTEX_TOLERANCE)


def _not_empty(table: EntryTable) -> EntryTable:
    if not len(table):
        raise HullError("a hull needs at least one entry, got none")
    return table


def _arrays(compositions: Sequence[Composition] | CompositionArrays) -> CompositionArrays:
    if isinstance(compositions, CompositionArrays):
        return compositions
    return CompositionArrays.from_compositions(compositions)


def _fractions(composition: Composition) -> np.ndarray:
    """(k,) atomic fractions in the order of the elements."""
    counts = np.array([count for _, count in composition.counts], dtype=float)
    return counts / counts.sum()
