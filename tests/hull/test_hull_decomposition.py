"""The geometry of one system: facets, the linear program, and when one gives way to the other."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import QhullError

import opengnome.hull.decomposition as decomposition
from opengnome.errors import HullError
from opengnome.hull import LowerHull, lowest_mixture


def random_points(n_elements: int, n_compounds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (n_compounds, n_elements))
    counts[np.arange(n_compounds), rng.integers(0, n_elements, n_compounds)] += 1
    fractions = np.vstack([np.eye(n_elements), counts / counts.sum(axis=1, keepdims=True)])
    return fractions, fractions @ rng.uniform(-9, -1, n_elements) - rng.exponential(0.3, len(fractions))


def reference_energy(fractions: np.ndarray, energies: np.ndarray, query: np.ndarray) -> float:
    return linprog(energies, A_eq=fractions.T, b_eq=query, method="highs").fun


@pytest.mark.parametrize("n_elements", [1, 2, 3, 4, 5, 6, 7, 9])
def test_hull_energy_equals_a_linear_program_of_scipy(n_elements):
    fractions, energies = random_points(n_elements, 40, seed=n_elements)
    lower_hull = LowerHull(fractions, energies)
    queries = np.random.default_rng(0).dirichlet(np.ones(n_elements), 10)
    expected = [reference_energy(fractions, energies, query) for query in queries]
    assert (lower_hull.facets is None) == (n_elements > decomposition.MAX_FACET_ELEMENTS)
    np.testing.assert_allclose(lower_hull.energies_at(queries), expected, atol=1e-8)
    np.testing.assert_allclose([lower_hull.mixture_at(q).energy_per_atom for q in queries], expected, atol=1e-8)


def test_mixture_has_the_composition_and_the_energy_it_claims():
    fractions, energies = random_points(4, 50, seed=3)
    query = np.array([0.1, 0.2, 0.3, 0.4])
    mixture = lowest_mixture(fractions, energies, query)
    np.testing.assert_allclose(mixture.amounts @ fractions[mixture.points], query, atol=1e-12)
    assert mixture.amounts @ energies[mixture.points] == pytest.approx(mixture.energy_per_atom, abs=1e-12)
    assert mixture.amounts.min() > 0
    assert len(mixture.points) <= 4


def test_facets_carry_the_chemical_potentials_of_a_binary():
    fractions = np.array([[1, 0], [0, 1], [0.5, 0.5]])
    lower_hull = LowerHull(fractions, np.array([-1.0, -2.0, -2.5]))  # formation energy -1 in the middle
    np.testing.assert_allclose(sorted(lower_hull.facets.tolist()), [[-2, 0], [0, -2]], atol=1e-12)


@pytest.mark.parametrize("compound_energy", [0.0, 0.3])
def test_without_a_stable_compound_the_hull_is_the_tie_plane(compound_energy):
    fractions = np.vstack([np.eye(3), [1 / 3, 1 / 3, 1 / 3]])
    lower_hull = LowerHull(fractions, np.array([0, 0, 0, compound_energy]))
    query = np.array([0.2, 0.3, 0.5])
    assert lower_hull.energies_at(query[None])[0] == 0.0
    assert lower_hull.mixture_at(query).points.tolist() == [0, 1, 2]


def test_qhull_giving_up_leaves_the_answer_to_the_linear_program(monkeypatch):
    fractions, energies = random_points(3, 30, seed=1)
    queries = np.random.default_rng(0).dirichlet(np.ones(3), 10)
    expected = LowerHull(fractions, energies).energies_at(queries)

    def give_up(points):
        raise QhullError("precision")

    monkeypatch.setattr(decomposition, "ConvexHull", give_up)
    lower_hull = LowerHull(fractions, energies)
    assert lower_hull.facets is None
    np.testing.assert_allclose(lower_hull.energies_at(queries), expected, atol=1e-10)


@pytest.mark.parametrize("fault", ["gap", "too low", "too high"])
def test_facets_that_are_not_the_hull_are_refused(fault, monkeypatch):
    fractions, energies = random_points(3, 30, seed=1)
    qhull = decomposition.ConvexHull

    def broken(points):
        hull = qhull(points)
        equations, simplices = hull.equations.copy(), hull.simplices.copy()
        lower = np.flatnonzero(equations[:, -2] < -1e-3)[0]
        if fault == "gap":
            keep = np.arange(len(equations)) != lower
            equations, simplices = equations[keep], simplices[keep]
        else:
            equations[lower, -1] += -1e-6 if fault == "too low" else 1e-6
        return type("Broken", (), {"equations": equations, "simplices": simplices})

    assert LowerHull(fractions, energies).facets is not None
    monkeypatch.setattr(decomposition, "ConvexHull", broken)
    assert LowerHull(fractions, energies).facets is None


def test_coplanar_compounds_all_lie_on_the_hull():
    grid = np.array([[a, b, 6 - a - b] for a in range(7) for b in range(7 - a)]) / 6
    energies = np.where(grid.max(axis=1) == 1.0, 0.0, -1.0)  # a flat terrace over the whole triangle
    lower_hull = LowerHull(grid, energies)
    np.testing.assert_allclose(lower_hull.energies_at(grid), energies, atol=1e-9)
    np.testing.assert_allclose([lower_hull.mixture_at(x).energy_per_atom for x in grid], energies, atol=1e-9)


def test_an_element_without_a_pure_point_is_refused():
    with pytest.raises(HullError, match="column 1 of the fractions has no pure point"):
        LowerHull(np.array([[1.0, 0.0], [0.5, 0.5]]), np.zeros(2))
