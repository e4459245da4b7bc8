"""Many small linear programs at once: the lowest mixture at each of many compositions.

The primal simplex method of Dantzig for ``min costs @ x`` with ``points @ x == query``, ``x >= 0``, run on a
batch of programs of the same number of elements k (equations) and padded number of points n. Every step is a
handful of array operations over the whole batch: price all points, exchange one per program, update the k x k
inverse; programs leave the batch when they are done. It starts at the pure elements, which are a feasible basis
of every composition, and a typical program of 20 points takes 5 steps.

Compositions of small integers are degenerate (a query on a tie line leaves a basic amount at zero), so the
steps are taken at a slightly perturbed composition; the answer is then computed anew at the exact one, and counts
only with its proof: amounts that are not negative, and chemical potentials below all points with the same energy.
"""

from dataclasses import dataclass

import numpy as np

# Reduced costs (eV/atom) above the negative of this count as not negative: the energy is this exact.
_COST_TOLERANCE = 1e-11
# Entries of the pivot column below this cannot be pivots.
_PIVOT_TOLERANCE = 1e-9
# Perturbation of the composition: larger than rounding, smaller than the amounts of any real mixture.
_PERTURBATION = 1e-7
# A program that takes more steps than this is left to the caller.
_MAX_STEPS = 500
# A proof: no amount is further below zero than this, and energy and bound differ by less (eV/atom).
_NEGATIVE_AMOUNT = 1e-10
_GAP_TOLERANCE = 1e-9
# Amounts below this atomic fraction are rounding, not phases.
_AMOUNT_TOLERANCE = 1e-11


@dataclass(frozen=True)
class Mixtures:
    """The lowest mixture at each of q compositions of k elements."""

    points: np.ndarray
    """(q, k) the points that are mixed, ascending; k of them, some with amount zero."""
    amounts: np.ndarray
    """(q, k) atomic fractions of the points; rows sum to one."""
    proven: np.ndarray
    """(q,) bool: whether the answer is proven to be the lowest; where not, points and amounts mean nothing."""


def lowest_mixtures(points: np.ndarray, costs: np.ndarray, queries: np.ndarray) -> Mixtures:
    """Mix the points of each program to its query at the lowest cost.

    `points` (q, k, n) hold atomic fractions in columns, the first k the pure elements in order, unused columns
    zero; `costs` (q, n) are formation energies in eV/atom, zero for the elements and the unused columns; `queries`
    (q, k) are atomic fractions, all positive.
    """
    basis, potentials, reached = _optimal_bases(points, costs, queries)
    basis.sort(axis=1)
    row = np.arange(len(queries))[:, None]
    amounts = _amounts(points[row, :, basis], queries)
    energies = (amounts * costs[row, basis]).sum(axis=1)
    # Weak duality: potentials below every point bound the energy from below; here they meet it.
    gap = energies - (potentials * queries).sum(axis=1)
    proven = reached & (amounts.min(axis=1) >= -_NEGATIVE_AMOUNT) & (np.abs(gap) <= _GAP_TOLERANCE)
    amounts = np.where(proven[:, None] & (amounts > _AMOUNT_TOLERANCE), amounts, 0.0)
    amounts[proven] /= amounts[proven].sum(axis=1, keepdims=True)
    return Mixtures(basis, amounts, proven)


@dataclass
class _Tableau:
    """Bases of the programs still running, and what is kept up to date with them."""

    basis: np.ndarray
    """(q, k) columns in the basis."""
    inverse: np.ndarray
    """(q, k, k) inverse of the matrix of these columns."""
    amounts: np.ndarray
    """(q, k) amounts of these columns at the perturbed composition, not negative."""
    potentials: np.ndarray
    """(q, k) chemical potentials relative to the elements, eV/atom: the plane through these columns."""

    @classmethod
    def of_elements(cls, queries: np.ndarray) -> "_Tableau":
        """All programs at the pure elements."""
        n_queries, k = queries.shape
        return cls(
            np.tile(np.arange(k), (n_queries, 1)),
            np.tile(np.eye(k), (n_queries, 1, 1)),
            queries + _PERTURBATION * _incommensurable(k),
            np.zeros((n_queries, k)),
        )

    def take(self, rows: np.ndarray) -> "_Tableau":
        return _Tableau(self.basis[rows], self.inverse[rows], self.amounts[rows], self.potentials[rows])

    def exchange(self, entering: np.ndarray, columns: np.ndarray, prices: np.ndarray) -> None:
        """Let one point of each program enter, of these fractions (q, k) and reduced costs (q,)."""
        row = np.arange(len(entering))
        direction = (self.inverse * columns[:, None, :]).sum(axis=2)
        ratios = np.where(direction > _PIVOT_TOLERANCE, self.amounts / direction, np.inf)
        leaving = ratios.argmin(axis=1)
        step = ratios[row, leaving]
        pivot_row = self.inverse[row, leaving] / direction[row, leaving][:, None]
        self.amounts -= step[:, None] * direction
        self.amounts[row, leaving] = step
        self.potentials += prices[:, None] * pivot_row
        self.inverse -= direction[:, :, None] * pivot_row[:, None, :]
        self.inverse[row, leaving] = pivot_row
        self.basis[row, leaving] = entering


def _optimal_bases(
    points: np.ndarray, costs: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of the optimal basis (q, k), its chemical potentials (q, k), and whether it was reached (q,)."""
    running = _Tableau.of_elements(queries)
    basis, potentials, reached = running.basis.copy(), running.potentials.copy(), np.zeros(len(queries), dtype=bool)
    active = np.arange(len(queries))
    # A program that breaks down numerically turns into NaN, is never done, and is left to the caller.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_MAX_STEPS):
            prices = costs - np.matmul(running.potentials[:, None, :], points)[:, 0]
            entering = prices.argmin(axis=1)
            lowest = np.take_along_axis(prices, entering[:, None], axis=1)[:, 0]
            done = lowest >= -_COST_TOLERANCE
            if done.any():
                ended = active[done]
                basis[ended], potentials[ended], reached[ended] = running.basis[done], running.potentials[done], True
                left = np.flatnonzero(~done)
                if not len(left):
                    break
                active, running, points, costs = active[left], running.take(left), points[left], costs[left]
                entering, lowest = entering[left], lowest[left]
            running.exchange(entering, points[np.arange(len(active)), :, entering], lowest)
    return basis, potentials, reached


def _incommensurable(n: int) -> np.ndarray:
    """Numbers (n,) in [0.5, 1.5) without simple relations: multiples of the golden ratio modulo one."""
    return 0.5 + np.arange(1, n + 1) * 0.6180339887498949 % 1.0


def _amounts(columns: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Amounts (q, k) in which the points of each basis, rows of `columns` (q, k, k), mix to the query.

    NaN where a basis is singular.
    """
    try:
        amounts: np.ndarray = np.linalg.solve(columns.transpose(0, 2, 1), queries[..., None])[..., 0]
    except np.linalg.LinAlgError:  # one basis of the batch is singular: answer the others
        regular = np.linalg.matrix_rank(columns) == queries.shape[1]
        amounts = np.full(queries.shape, np.nan)
        amounts[regular] = np.linalg.solve(columns[regular].transpose(0, 2, 1), queries[regular][..., None])[..., 0]
    return amounts
