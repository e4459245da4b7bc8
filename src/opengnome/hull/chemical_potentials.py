"""Chemical potentials at which phases are in equilibrium: vertices, stability regions, gas reservoirs.

The chemical potentials ``mu`` at which nothing precipitates are those below every phase, ``x . mu <= e`` for
all atomic fractions x and energies e. This polyhedron is the dual of the convex hull: its vertices are the
facets of the lower hull, and a phase is in equilibrium on the face where its own inequality is an equality.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from opengnome.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull.decomposition import LowerHull
from opengnome.hull.entry import Entry
from opengnome.hull.hull import Hull

ON_HULL = 1e-8
"""Phases this close to the hull (eV/atom) are on it: ten times what a facet of `LowerHull` may be off."""

# Vertices closer than this (eV/atom) are one vertex, met again in the triangulation of a merged facet.
_SAME_VERTEX = 1e-8
# Double description: values below this are zero; rays are scaled to a largest component of one.
_ZERO = 1e-10


@dataclass(frozen=True)
class Phases:
    """The lowest entry of every stoichiometry inside a set of elements, sorted by stoichiometry."""

    elements: tuple[int, ...]
    """Atomic numbers of the k columns, ascending."""
    entries: tuple[Entry, ...]
    counts: np.ndarray
    """(n, k) atoms of each element as the composition of the entry has them."""
    energies: np.ndarray
    """(n,) corrected energies, eV/atom."""

    @cached_property
    def fractions(self) -> np.ndarray:
        """(n, k) atomic fractions."""
        return self.counts / self.counts.sum(axis=1, keepdims=True)

    @cached_property
    def references(self) -> np.ndarray:
        """(k,) energies of the elements, eV/atom. Raises `MissingReferenceError`."""
        lowest = {e.composition.counts[0][0]: e for e in self.entries if e.composition.n_elements == 1}
        refuse_missing((z for z in self.elements if z not in lowest), what="an entry of the pure element")
        return np.array([lowest[z].corrected_energy_per_atom for z in self.elements])


def phases_inside(hull: Hull, elements: Iterable[int]) -> Phases:
    """The phases of a hull made of nothing but `elements` (atomic numbers); some elements may have no entry."""
    system = tuple(sorted(set(elements)))
    table = hull.table
    allowed = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=bool)
    allowed[list(system)] = True
    inside = np.logical_and.reduceat(allowed[table.compositions.atomic_numbers], table.compositions.starts[:-1])
    lowest: dict[tuple[tuple[int, int], ...], Entry] = {}
    for entry in map(table.entry, np.flatnonzero(inside).tolist()):
        stoichiometry = entry.composition.reduced.counts
        rival = lowest.get(stoichiometry)
        if rival is None or _stability_order(entry) < _stability_order(rival):
            lowest[stoichiometry] = entry
    entries = tuple(lowest[stoichiometry] for stoichiometry in sorted(lowest))
    counts = count_matrix((entry.composition.counts for entry in entries), len(entries), system)
    return Phases(system, entries, counts, np.array([entry.corrected_energy_per_atom for entry in entries]))


@dataclass(frozen=True)
class StabilityRegion:
    """The chemical potentials at which a phase is in equilibrium with everything else.

    The region is the convex hull of `vertices`, extended without end to lower potentials of `unbounded`.
    """

    entry: Entry
    elements: tuple[int, ...]
    """Atomic numbers of the k columns, ascending; those of the phase and any further ones asked for."""
    vertices: np.ndarray
    """(v, k) chemical potentials, eV/atom on the scale of the entries, in lexicographic order."""
    references: np.ndarray
    """(k,) energies of the elements, eV/atom; subtract them for potentials relative to the elements."""
    coexisting: tuple[tuple[str, ...], ...]
    """At each vertex the ids of all phases in equilibrium there, the phase itself among them; sorted."""

    @property
    def unbounded(self) -> tuple[int, ...]:
        """Elements that the phase does not contain: nothing bounds their potential from below."""
        return tuple(z for z in self.elements if z not in self.entry.composition.atomic_numbers)

    def limits(self, element: int) -> tuple[float, float]:
        """Lowest and highest chemical potential of an element within the region, eV/atom.

        Raises `HullError` when the element (atomic number) is not one of `elements`.
        """
        column = column_of(self.elements, element)
        lowest = -math.inf if element in self.unbounded else float(self.vertices[:, column].min())
        return lowest, float(self.vertices[:, column].max())


def equilibrium_vertices(phases: Phases) -> np.ndarray:
    """All vertices (v, k) of the region below every phase, eV/atom, in lexicographic order.

    Each is a point where at least k phases coexist. By the facets of `LowerHull`, or by double description where
    that has none (many elements, degenerate points). Raises `MissingReferenceError`.
    """
    references = phases.references
    facets = LowerHull(phases.fractions, phases.energies).facets
    if facets is None:
        depths = phases.fractions @ references - phases.energies
        facets = -_double_description(phases.fractions[depths > 0], depths[depths > 0])
    return _distinct_rows(references + facets)


def stability_regions(hull: Hull, elements: Iterable[int]) -> tuple[StabilityRegion, ...]:
    """The stability regions of all phases on the hull of `elements` (atomic numbers): a diagram.

    One region per stoichiometry, that of its lowest entry, sorted by stoichiometry. Raises
    `MissingReferenceError`.
    """
    phases = phases_inside(hull, elements)
    if not phases.elements:
        raise HullError("chemical potentials are asked of no element; name at least one")
    vertices = equilibrium_vertices(phases)
    touches = phases.energies[:, None] - phases.fractions @ vertices.T < ON_HULL  # (n, v)
    ids = np.array([entry.id for entry in phases.entries], dtype=object)
    coexisting = [tuple(sorted(ids[column])) for column in touches.T]
    return tuple(
        StabilityRegion(
            entry,
            phases.elements,
            vertices[touched],
            phases.references,
            tuple(coexisting[v] for v in np.flatnonzero(touched)),
        )
        for entry, touched in zip(phases.entries, touches, strict=True)
        if touched.any()
    )


def stability_region(hull: Hull, entry: Entry, *, elements: Iterable[int] = ()) -> StabilityRegion:
    """The stability region of one entry, in the space of its own elements and any further `elements`.

    An entry that is not in the hull is added to it first. Raises `HullError` when the entry is above the hull,
    where its region is empty, and `MissingReferenceError`.
    """
    with_entry = hull if entry in hull else hull.with_entries([entry])
    space = {*entry.composition.atomic_numbers, *elements}
    for region in stability_regions(with_entry, space):
        lowest = region.entry
        if lowest.composition.reduced == entry.composition.reduced and (
            entry.corrected_energy_per_atom - lowest.corrected_energy_per_atom < ON_HULL
        ):
            return replace(region, entry=entry)  # the entry itself, or one of the same energy
    distance = with_entry.energy_above_hull(entry)
    products = " + ".join(formula for _, formula, _ in with_entry.decompose(entry.composition).products)
    raise HullError(
        f"entry {entry.id!r} ({entry.reduced_formula}) lies {distance:.3g} eV/atom above the hull ({products}); "
        "no chemical potentials make it stable: ask for a phase on the hull"
    )


def critical_chemical_potentials(hull: Hull, element: int, elements: Iterable[int]) -> np.ndarray:
    """Where equilibria of a system change as the potential of one element rises: (c,) eV/atom, ascending.

    The values of `element` at all vertices of the system of `elements`, as pymatgen's
    ``get_transition_chempots``. The highest is the energy of the element. Raises `HullError` when the element is
    not one of `elements`, `MissingReferenceError`.
    """
    phases = phases_inside(hull, elements)
    values = equilibrium_vertices(phases)[:, column_of(phases.elements, element)]
    return _distinct_rows(values[:, None])[:, 0]


def refuse_missing(missing: Iterable[int], *, what: str) -> None:
    """Raise `MissingReferenceError` when any elements (atomic numbers) are `missing`."""
    names = ", ".join(SYMBOLS[z] for z in missing)
    if names:
        raise MissingReferenceError(
            f"no elemental reference for {names}; the question needs {what}: add an entry of {names} "
            "(with energy 0 where the entries hold formation energies)"
        )


def column_of(elements: tuple[int, ...], element: int) -> int:
    """Place of an element among the columns. Raises `HullError` when it is not there."""
    if element not in elements:
        raise HullError(
            f"{SYMBOLS[element]} is not among the elements {', '.join(SYMBOLS[z] for z in elements)}; add it to them"
        )
    return elements.index(element)


def count_matrix(counts: Iterable[tuple[tuple[int, int], ...]], n_rows: int, elements: tuple[int, ...]) -> np.ndarray:
    """Counts (n_rows, k) over `elements`; elements of a composition that are not columns are left out."""
    columns = {z: column for column, z in enumerate(elements)}
    matrix = np.zeros((n_rows, len(elements)))
    for row, pairs in enumerate(counts):
        for z, count in pairs:
            if z in columns:
                matrix[row, columns[z]] = count
    return matrix


def _stability_order(entry: Entry) -> tuple[float, str]:
    return entry.corrected_energy_per_atom, entry.id


def _distinct_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (n, k) without repetitions up to `_SAME_VERTEX`, in lexicographic order of the rounded values."""
    ordered = rows[np.lexsort(np.round(rows / _SAME_VERTEX).T[::-1])]
    kept = np.ones(len(ordered), dtype=bool)
    for row in range(1, len(ordered)):
        # Rounding may tear equal rows apart, so the rows are compared with all those kept, not with the last.
        kept[row] = (np.abs(ordered[:row][kept[:row]] - ordered[row]).max(axis=1) > _SAME_VERTEX).all()
    return ordered[kept]


def _double_description(fractions: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Vertices (v, k) of ``u >= 0, fractions @ u >= depths`` for positive `depths` (n,).

    The double description method (Motzkin et al. 1953; Fukuda and Prodon, doi:10.1007/3-540-61576-8_77) on the
    cone of (u, t): start from the rays of the positive orthant, cut with one half-space at a time, and put a new
    ray on every edge that is cut. Slower than qhull in few dimensions, but a degenerate vertex is no trouble.
    """
    order = np.lexsort((*fractions.T, -depths))  # deep cuts first: later ones are more often redundant
    cuts = np.column_stack([fractions, -depths])[order]
    dimension = cuts.shape[1]
    rays = np.eye(dimension)
    constraints = np.eye(dimension)
    for cut in cuts:
        heights = rays @ cut
        above, below = np.flatnonzero(heights > _ZERO), np.flatnonzero(heights < -_ZERO)
        if not len(below):
            continue
        tight = np.abs(rays @ constraints.T) < _ZERO  # (r, c)
        up, down = _edges(tight, above, below, dimension)
        new = heights[up, None] * rays[down] - heights[down, None] * rays[up]
        rays = np.vstack([rays[heights >= -_ZERO], new / np.abs(new).max(axis=1, keepdims=True)])
        constraints = np.vstack([constraints, cut])
    finite = rays[:, -1] > _ZERO
    return rays[finite, :-1] / rays[finite, -1:]


def _edges(tight: np.ndarray, above: np.ndarray, below: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a ray above and a ray below the cut that span an edge of the cone, shape (p,) each.

    Two rays are adjacent when no third is on all the constraints that both are on.
    """
    up, down = (grid.ravel() for grid in np.meshgrid(above, below, indexing="ij"))
    common = tight[up] & tight[down]  # (p, c)
    enough = common.sum(axis=1) >= dimension - 2
    up, down, common = up[enough], down[enough], common[enough]
    off = common.astype(np.float32) @ (~tight).astype(np.float32).T  # (p, r) common constraints that a ray is not on
    adjacent = (off == 0).sum(axis=1) == 2
    return up[adjacent], down[adjacent]


# Gases ----------------------------------------------------------------------------------------------------------

_BOLTZMANN = 8.617333262e-5  # eV/K, CODATA 2018
_PLANCK_TIMES_C = 1.239841984e-4  # eV cm
_PLANCK = 6.62607015e-34  # J s
_JOULES_PER_EV = 1.602176634e-19
_ATOMIC_MASS = 1.66053906660e-27  # kg

AIR_OXYGEN_PRESSURE = 0.2095 * 101325.0
"""Partial pressure of oxygen in dry air at one atmosphere, Pa."""


@dataclass(frozen=True)
class _Diatomic:
    """A homonuclear molecule, from Huber and Herzberg (doi:10.1007/978-1-4757-0961-2)."""

    mass: float  # of the molecule, unified atomic mass units
    rotation: float  # rotational constant of the vibrational ground state B0, 1/cm
    vibration: float  # from the vibrational ground state to the first excited one, 1/cm
    degeneracy: int  # electronic, of the ground state


_GASES = {
    1: _Diatomic(2.01588, 59.3345, 4161.17, 1),
    7: _Diatomic(28.0134, 1.98958, 2329.92, 1),
    8: _Diatomic(31.9988, 1.43768, 1556.23, 3),
    9: _Diatomic(37.9968064, 0.88327, 894.17, 1),
    17: _Diatomic(70.906, 0.24324, 554.37, 1),
}


def gas_potential_shift(element: int, temperature: float, pressure: float) -> float:
    """Chemical potential of an element in its diatomic gas, relative to the molecule at rest, eV/atom.

    Ideal gas of rigid rotors and harmonic oscillators, for H, N, O, F and Cl; within 1 meV/atom of the NIST-JANAF
    tables at 298 K and 1000 K. `temperature` in K, `pressure` in Pa, both positive. The zero is the molecule in its
    lowest state at 0 K, as in Reuter and Scheffler (doi:10.1103/PhysRevB.65.035406): add the energy per atom of the
    element. The solids keep their energies of 0 K. Raises `HullError`.
    """
    if element not in _GASES:
        names = ", ".join(SYMBOLS[z] for z in _GASES)
        raise HullError(f"{SYMBOLS[element]} is not a diatomic gas; choose from {names}")
    if not (0 < temperature < math.inf and 0 < pressure < math.inf):
        raise HullError(f"{temperature=} K and {pressure=} Pa must both be positive and finite")
    gas, thermal = _GASES[element], _BOLTZMANN * temperature
    joules = thermal * _JOULES_PER_EV
    wavelength = _PLANCK / math.sqrt(2.0 * math.pi * gas.mass * _ATOMIC_MASS * joules)  # m
    translation = joules / pressure / wavelength**3
    levels = np.arange(1 + int(20.0 * math.sqrt(1.0 + thermal / (_PLANCK_TIMES_C * gas.rotation))))
    weights = (2 * levels + 1) * np.exp(-_PLANCK_TIMES_C * gas.rotation * levels * (levels + 1) / thermal)
    rotation = float(weights.sum()) / 2.0  # half of the levels are forbidden to equal nuclei
    vibration = -1.0 / math.expm1(-_PLANCK_TIMES_C * gas.vibration / thermal)
    return -0.5 * thermal * math.log(translation * rotation * vibration * gas.degeneracy)
