"""The geometry of one chemical system: the lower convex hull of energy over composition, as pure arrays.

Two engines answer the same question. Facets of the lower hull by qhull (Barber et al.,
doi:10.1145/235815.235821): built once, then any number of compositions in one matrix product. A linear
program by HiGHS (Huangfu and Hall, doi:10.1007/s12532-017-0130-5): one composition at a time, in any
dimension, with the phases and their amounts. The facets are used only when they prove themselves
(`_are_exact`); otherwise the linear program answers.
"""

from dataclasses import dataclass
from functools import cached_property

import highspy
import numpy as np
from scipy.spatial import ConvexHull, QhullError

from opengnome.errors import HullError

MAX_FACET_ELEMENTS = 6
"""Systems of more elements go to the linear program.

Measured on Materials Project systems: facets take 1 ms to build
for 5 elements, 8 ms for 6, 60 ms for 7, 4 s for 9; one linear program takes 0.4, 1, 2 and 4 ms.
"""

# Points this close (eV/atom) to the tie plane of the elements cannot matter; pymatgen's value.
_FORMATION_ENERGY_TOLERANCE = 1e-11
# A facet is accepted when no point lies further below it (eV/atom).
_FACET_TOLERANCE = 1e-9
# Facets steeper than this (after scaling energies to order one) are the vertical walls of the simplex.
_VERTICAL = 1e-8
# Simplices of smaller volume, in units of the whole composition simplex, are slivers of a merged facet.
_SLIVER = 1e-14
# Amounts below this atomic fraction are rounding of the linear program, not phases.
_AMOUNT_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Mixture:
    """The mixture of lowest energy at a composition."""

    energy_per_atom: float
    """eV/atom, on the energy scale of the points."""
    points: np.ndarray
    """(p,) indices of the points that are mixed, ascending; at most one per element."""
    amounts: np.ndarray
    """(p,) atomic fractions of the points, positive; they sum to one."""


class LowerHull:
    """Lower convex hull of n points over k elements.

    `fractions` (n, k) are atomic fractions, rows sum to one, and each element has at least one pure
    point; `energies` (n,) are eV/atom. Only points below the tie plane of the elements enter the facets.
    """

    def __init__(self, fractions: np.ndarray, energies: np.ndarray) -> None:
        self.fractions = fractions
        self.energies = energies
        self._references, self._formation, self._candidates = _candidate_points(fractions, energies)

    @cached_property
    def facets(self) -> np.ndarray | None:
        """(f, k) chemical potentials, eV/atom relative to the elements, one row per facet.

        The hull energy is the highest facet, ``max(facets @ x)``. None when the linear program is
        the better engine: many elements, or points too degenerate for qhull.
        """
        return _lower_facets(self.fractions[self._candidates], self._formation[self._candidates])

    def energies_at(self, queries: np.ndarray) -> np.ndarray:
        """Hull energy in eV/atom, shape (m,), at compositions `queries` (m, k) of atomic fractions."""
        references = queries @ self._references
        if self.facets is not None:
            return references + (queries @ self.facets.T).max(axis=1)
        return np.array([self.mixture_at(query).energy_per_atom for query in queries])

    def mixture_at(self, query: np.ndarray) -> Mixture:
        """The decomposition at one composition, `query` (k,) atomic fractions."""
        chosen, amounts = _solve(
            self.fractions[self._candidates], self._formation[self._candidates], query / query.sum()
        )
        points = self._candidates[chosen]
        return Mixture(float(amounts @ self.energies[points]), points, amounts)


def lowest_mixture(fractions: np.ndarray, energies: np.ndarray, query: np.ndarray) -> Mixture:
    """Decomposition of one composition without building facets; arguments as for `LowerHull`."""
    return LowerHull(fractions, energies).mixture_at(query)


def _candidate_points(fractions: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Elemental energies (k,), formation energies (n,), and the indices of points that can be on the hull.

    The lowest point of each element comes first among the indices, in the order of the columns.
    """
    n_elements = fractions.shape[1]
    corners = np.empty(n_elements, dtype=int)
    for column in range(n_elements):
        pure = np.flatnonzero(fractions[:, column] == 1.0)
        if not len(pure):
            raise HullError(f"column {column} of the fractions has no pure point; every element needs one")
        corners[column] = pure[np.argmin(energies[pure])]
    references = energies[corners]
    formation = energies - fractions @ references
    formation[corners] = 0.0
    below = np.flatnonzero(formation < -_FORMATION_ENERGY_TOLERANCE)
    return references, formation, np.concatenate([corners, below])


def _lower_facets(fractions: np.ndarray, formation: np.ndarray) -> np.ndarray | None:
    """Facets (f, k) of the lower hull of points whose first k rows are the elements, or None."""
    n_points, n_elements = fractions.shape
    if n_points == n_elements:  # no compound is stable: the hull is the tie plane of the elements
        return np.zeros((1, n_elements))
    if n_elements > MAX_FACET_ELEMENTS:
        return None
    scale = -formation.min()
    coordinates = np.column_stack([fractions[:, 1:], formation / scale])
    # One point far above the centre makes the hull full-dimensional whatever the others are.
    top = np.append(np.full(n_elements - 1, 1.0 / n_elements), 1.0)
    try:
        hull = ConvexHull(np.vstack([coordinates, top]))
    except QhullError:  # too degenerate for qhull; the linear program is not
        return None
    lower = hull.equations[:, -2] < -_VERTICAL
    simplices = hull.simplices[lower]
    volumes = np.abs(np.linalg.det(fractions[simplices]))
    solid = volumes > _SLIVER
    normals, offsets = np.split(hull.equations[lower][solid], [n_elements], axis=1)
    # The plane n.x + n_E E + offset = 0, read as its energy at each corner of the composition simplex.
    slopes = np.column_stack([np.zeros(len(offsets)), normals[:, :-1]])
    facets = -(slopes + offsets) / normals[:, -1:] * scale
    if not _are_exact(facets, simplices[solid], volumes[solid], fractions, formation):
        return None
    return facets


def _are_exact(
    facets: np.ndarray,
    simplices: np.ndarray,
    volumes: np.ndarray,
    fractions: np.ndarray,
    formation: np.ndarray,
) -> bool:
    """Whether the facets are the lower hull: below all points, through their corners, without a gap."""
    heights = formation[:, None] - fractions @ facets.T  # (n, f)
    corner_heights = heights[simplices, np.arange(len(facets))[:, None]]
    return bool(
        heights.min() > -_FACET_TOLERANCE
        and corner_heights.max() < _FACET_TOLERANCE
        and abs(volumes.sum() - 1.0) < 1e-6
    )


def _solve(fractions: np.ndarray, formation: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that mix to `query` at the lowest energy, and their amounts; first k rows are the elements."""
    n_points, n_elements = fractions.shape
    amounts = query if n_points == n_elements else _linear_program(fractions, formation, query)
    chosen = np.flatnonzero(amounts > _AMOUNT_TOLERANCE)
    # The program meets the composition to its own tolerance; the phases it chose meet it exactly.
    exact, *_ = np.linalg.lstsq(fractions[chosen].T, query, rcond=None)
    amounts = exact if exact.min() > 0 else amounts[chosen]
    return chosen, amounts / amounts.sum()


def _linear_program(fractions: np.ndarray, formation: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Amounts (n,) that minimise ``amounts @ formation`` with ``amounts @ fractions == query``."""
    rows, columns = np.nonzero(fractions)
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = fractions.shape
    program.col_cost_ = formation
    program.col_lower_ = np.zeros(len(fractions))
    program.col_upper_ = np.full(len(fractions), highspy.kHighsInf)
    program.row_lower_ = program.row_upper_ = query
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.searchsorted(rows, np.arange(len(fractions) + 1))
    program.a_matrix_.index_ = columns
    program.a_matrix_.value_ = fractions[rows, columns]
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("solver", "simplex")
    solver.setOptionValue("presolve", "off")  # costs more than it saves at this size
    solver.setOptionValue("primal_feasibility_tolerance", 1e-10)
    solver.setOptionValue("dual_feasibility_tolerance", 1e-10)
    solver.passModel(program)
    solver.run()
    status = solver.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise HullError(
            f"HiGHS ended with {solver.modelStatusToString(status)!r} for {len(fractions)} points "
            f"at {query}; energies must be finite and of the order of electronvolts per atom"
        )
    return np.array(solver.getSolution().col_value)
