"""What competes with many compositions at once: the hull at each of them, its own stoichiometry left out.

One number answers every bulk question. Let c be the energy of the lowest mixture of *other* stoichiometries at a
composition, and e the lowest energy known at the composition itself. The hull there is ``min(e, c)``; a phase is a
vertex when ``e < c``; without one entry the hull is ``min(e', c)`` with e' the next polymorph, and without all
polymorphs it is c. So leaving entries out needs no second hull.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.hull.composition_arrays import CompositionArrays, ranges, starts_of
from opengnome.hull.decomposition import lowest_mixture
from opengnome.hull.index import EntryIndex
from opengnome.hull.simplex import lowest_mixtures

# Formation energies (eV/atom) above the negative of this cannot matter below the tie plane of the elements.
_FORMATION_ENERGY_TOLERANCE = 1e-11
# Compounds further above what competes with them than this (eV/atom) are no vertices.
_VERTEX_TOLERANCE = 1e-9
# Numbers of one batch of linear programs: large enough to hide the cost of a numpy call, small enough for the cache.
_BATCH_SIZE = 250_000


@dataclass(frozen=True)
class Competition:
    """The lowest mixture of other stoichiometries at each of q compositions."""

    energies: np.ndarray
    """(q,) eV/atom, corrected, on the scale of the entries; infinite for pure elements, which have none."""
    points: np.ndarray
    """(q, k) numbers of the stoichiometries that are mixed, -1 where fewer are."""
    amounts: np.ndarray
    """(q, k) their atomic fractions, zero where `points` is -1."""


@dataclass(frozen=True, eq=False)
class Competitors:
    """The lowest energy of every stoichiometry of an index, ready to compete."""

    index: EntryIndex
    lowest: np.ndarray
    """(s,) corrected energies, eV/atom; infinite where no entry is left."""

    @cached_property
    def elements(self) -> np.ndarray:
        """(119,) stoichiometry of each pure element by atomic number, -1 where there is none."""
        numbers = np.full(MAX_ATOMIC_NUMBER + 1, -1)
        stoichiometries = self.index.stoichiometries
        pure = np.flatnonzero((stoichiometries.n_elements == 1) & np.isfinite(self.lowest))
        numbers[stoichiometries.atomic_numbers[stoichiometries.starts[pure]]] = pure
        return numbers

    @cached_property
    def references(self) -> np.ndarray:
        """(119,) energy of each element by atomic number, eV/atom; NaN where there is none."""
        return np.where(self.elements >= 0, self.lowest[self.elements], np.nan)

    @cached_property
    def formation(self) -> np.ndarray:
        """(s,) formation energies, eV/atom; NaN where an element has no reference."""
        return self.lowest - self.index.stoichiometries.means(self.references)

    @cached_property
    def _binding(self) -> np.ndarray:
        """(s,) bool: compounds below the tie plane of their elements."""
        return (self.formation < -_FORMATION_ENERGY_TOLERANCE) & (self.index.stoichiometries.n_elements > 1)

    def compete_all(self, known: np.ndarray, *, workers: int = 1) -> np.ndarray:
        """(s,) energy of what competes with every stoichiometry; those that are not NaN in ``known`` (s,) are kept.

        The hull of a subsystem is a face of the hull of the system, so a compound that is no vertex of its
        own system is none of a larger one: with few elements first, most points drop out on the way.
        """
        stoichiometries = self.index.stoichiometries
        n_elements = stoichiometries.n_elements
        energies = np.where(n_elements == 1, np.inf, known)
        binding = self._binding.copy()
        for k in range(2, int(n_elements.max(initial=1)) + 1):
            of_size = n_elements == k
            rows = np.flatnonzero(of_size & np.isnan(energies))
            if len(rows):
                answer = self._compete(stoichiometries.take(rows), rows, binding, workers)
                energies[rows] = answer.energies
            binding[of_size] &= self.lowest[of_size] < energies[of_size] + _VERTEX_TOLERANCE
        return energies

    def compete(self, compositions: CompositionArrays, own: np.ndarray, *, workers: int = 1) -> Competition:
        """What competes at each composition, whose stoichiometry is ``own`` (q,), -1 where it is unknown.

        All elements must have a reference. `workers` threads share the work; the answers do not depend on it.
        """
        return self._compete(compositions, own, self._binding, workers)

    def _compete(
        self, compositions: CompositionArrays, own: np.ndarray, binding: np.ndarray, workers: int
    ) -> Competition:
        """`compete` among the compounds that ``binding`` (s,) marks."""
        n_elements = compositions.n_elements
        widest = int(n_elements.max(initial=1))
        answer = Competition(
            np.full(len(compositions), np.inf),
            np.full((len(compositions), widest), -1),
            np.zeros((len(compositions), widest)),
        )

        def solve(batch: "_Batch") -> None:
            points, amounts = batch.solve()
            width = points.shape[1]
            answer.points[batch.rows, :width] = points
            answer.amounts[batch.rows, :width] = amounts
            answer.energies[batch.rows] = (amounts * self.lowest[points]).sum(axis=1)

        for k in np.unique(n_elements[n_elements > 1]).tolist():
            rows = np.flatnonzero(n_elements == k)
            flat = compositions.starts[rows][:, None] + np.arange(k)
            systems = _Systems.of(self, binding, compositions.atomic_numbers[flat])
            _for_each(solve, systems.batches(rows, compositions.fractions[flat], own[rows]), workers)
        answer.points[answer.amounts == 0.0] = -1
        return answer


@dataclass(frozen=True, eq=False)
class _Systems:
    """The u systems of q compositions of k elements each, and the known systems inside them."""

    competitors: Competitors
    elements: np.ndarray
    """(u, k) atomic numbers, ascending."""
    system_of: np.ndarray
    """(q,) the system of each composition."""
    compounds: np.ndarray
    """(b,) stoichiometries that can be on a hull, ascending."""
    compound_starts: np.ndarray
    """(t + 1,) where the compounds of each known system begin."""
    known: np.ndarray
    """(p,) known systems with binding compounds, those inside one system after those inside the one before."""
    starts: np.ndarray
    """(u + 1,) where those inside each system begin."""
    n_points: np.ndarray
    """(u,) binding compounds of each system."""

    @classmethod
    def of(cls, competitors: Competitors, binding: np.ndarray, elements: np.ndarray) -> "_Systems":
        """Of the rows of `elements` (q, k); `binding` (s,) says which stoichiometries take part."""
        unique, system_of = unique_rows(elements)
        compounds = np.flatnonzero(binding)
        compound_starts = np.searchsorted(compounds, competitors.index.system_starts)
        asked, known = competitors.index.subsystems(unique)
        n_binding = np.diff(compound_starts)[known]
        asked, known, n_binding = (values[n_binding > 0] for values in (asked, known, n_binding))
        starts = starts_of(np.bincount(asked, minlength=len(unique)))
        n_points = np.bincount(asked, weights=n_binding, minlength=len(unique)).astype(np.int64)
        return cls(competitors, unique, system_of, compounds, compound_starts, known, starts, n_points)

    def batches(self, rows: np.ndarray, queries: np.ndarray, own: np.ndarray) -> Iterator["_Batch"]:
        """The compositions in batches of about the same number of points, systems kept together."""
        k = self.elements.shape[1]
        n_points = self.n_points[self.system_of]
        order = np.lexsort((self.system_of, n_points))
        sizes = k * (n_points[order] + k)
        start = 0
        while start < len(order):
            stop = min(len(order), start + max(1, _BATCH_SIZE // int(sizes[start])))
            stop = min(stop, start + max(1, _BATCH_SIZE // int(sizes[stop - 1])))
            part = order[start:stop]
            yield _Batch(self, self.system_of[part], rows[part], queries[part], own[part])
            start = stop


@dataclass(frozen=True, eq=False)
class _Batch:
    """Compositions whose linear programs are solved together."""

    systems: _Systems
    system_of: np.ndarray
    """(q,) system of each composition; equal ones are consecutive."""
    rows: np.ndarray
    """(q,) where the answers go."""
    queries: np.ndarray
    """(q, k) atomic fractions."""
    own: np.ndarray
    """(q,) stoichiometry of each composition, left out."""

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Stoichiometries that are mixed (q, k), and their amounts (q, k)."""
        systems = self.system_of[np.append(True, self.system_of[1:] != self.system_of[:-1])]
        points, numbers = self._points(systems)
        costs = self.systems.competitors.formation[numbers]
        costs[:, : self.queries.shape[1]] = 0.0
        costs[numbers < 0] = 0.0
        if len(systems) < len(self.system_of):
            which = np.cumsum(np.append(False, self.system_of[1:] != self.system_of[:-1]))
            points, numbers, costs = points[which], numbers[which], costs[which]
        # A point of no cost on the composition itself never lowers the mixture.
        costs[numbers == np.where(self.own < 0, -2, self.own)[:, None]] = 0.0
        mixtures = lowest_mixtures(points, costs, self.queries)
        chosen = np.take_along_axis(numbers, mixtures.points, axis=1)
        amounts = mixtures.amounts
        for row in np.flatnonzero(~mixtures.proven).tolist():
            used = (costs[row] < 0) | (np.arange(costs.shape[1]) < self.queries.shape[1])
            exact = lowest_mixture(points[row][:, used].T, costs[row, used], self.queries[row])
            chosen[row], amounts[row] = numbers[row, : self.queries.shape[1]], 0.0
            chosen[row, : len(exact.points)] = numbers[row, used][exact.points]
            amounts[row, : len(exact.points)] = exact.amounts
        return chosen, amounts

    def _points(self, systems: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Atomic fractions (s, k, n) of the points of each system, and their stoichiometries (s, n), -1 if unused.

        The first k points are the pure elements.
        """
        elements = self.systems.elements[systems]
        n_systems, k = elements.shape
        starts, compound_starts = self.systems.starts, self.systems.compound_starts
        inside = self.systems.known[ranges(starts[systems], starts[systems + 1] - starts[systems])]
        first, stop = compound_starts[inside], compound_starts[inside + 1]
        compounds = self.systems.compounds[ranges(first, stop - first)]
        competitors = self.systems.competitors
        lengths = self.systems.n_points[systems]
        system = np.repeat(np.arange(n_systems), lengths)
        slot = k + ranges(np.zeros(n_systems, dtype=np.int64), lengths)
        numbers = np.full((n_systems, k + int(lengths.max())), -1)
        numbers[:, :k] = competitors.elements[elements]
        numbers[system, slot] = compounds
        points = np.zeros((n_systems, k, numbers.shape[1]))
        points[:, np.arange(k), np.arange(k)] = 1.0
        column_of = np.zeros((n_systems, MAX_ATOMIC_NUMBER + 1), dtype=np.int64)
        np.put_along_axis(column_of, elements, np.arange(k)[None, :], axis=1)
        stoichiometries = competitors.index.stoichiometries
        n_elements = stoichiometries.n_elements[compounds]
        flat = ranges(stoichiometries.starts[compounds], n_elements)
        system, slot = np.repeat(system, n_elements), np.repeat(slot, n_elements)
        column = column_of[system, stoichiometries.atomic_numbers[flat]]
        points[system, column, slot] = stoichiometries.fractions[flat]
        return points, numbers


def unique_rows(elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows (u, k) of atomic numbers (q, k), and which of them each row is (q,)."""
    k = elements.shape[1]
    if k > 9:  # nine atomic numbers of seven bits fit one integer
        unique, which = np.unique(elements, axis=0, return_inverse=True)
        return unique, which.ravel()
    codes = elements @ (1 << 7 * np.arange(k))
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    return elements[first], which


def _for_each(act: Callable[["_Batch"], None], batches: Iterable["_Batch"], workers: int) -> None:
    if workers == 1:
        for batch in batches:
            act(batch)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(act, batches))
