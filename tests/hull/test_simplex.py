"""Batches of linear programs: each answer is the lowest mixture, and says so only when it is proven."""

import numpy as np
import pytest
from scipy.optimize import linprog

import opengnome.hull.simplex as simplex
from opengnome.hull.simplex import lowest_mixtures


def random_programs(k: int, n: int, q: int, seed: int, *, levels: int | None = None):
    """q programs of k elements and n compounds of small whole numbers; `levels` of energy make ties."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (q, n, k))
    counts[..., 0] += counts.sum(axis=2) == 0
    fractions = np.concatenate([np.tile(np.eye(k), (q, 1, 1)), counts / counts.sum(axis=2, keepdims=True)], axis=1)
    energies = -rng.random((q, n)) if levels is None else -rng.integers(0, levels, (q, n)) / levels
    costs = np.concatenate([np.zeros((q, k)), energies], axis=1)
    costs[fractions.max(axis=2) == 1.0] = 0.0
    queries = rng.integers(1, 5, (q, k)).astype(float)
    return fractions.transpose(0, 2, 1), costs, queries / queries.sum(axis=1, keepdims=True)


def check(points, costs, queries, mixtures):
    for i in range(len(queries)):
        columns, amounts = mixtures.points[i], mixtures.amounts[i]
        np.testing.assert_allclose(points[i][:, columns] @ amounts, queries[i], atol=1e-12)
        assert amounts.min() >= 0
        expected = linprog(costs[i], A_eq=points[i], b_eq=queries[i], method="highs").fun
        assert amounts @ costs[i, columns] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7, 9, 12])
def test_every_program_of_a_batch_is_solved(k):
    programs = random_programs(k, 30, 12, seed=k)
    mixtures = lowest_mixtures(*programs)
    assert mixtures.proven.all()
    check(*programs, mixtures)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_ties_and_coplanar_points_do_not_cycle(k, levels):
    programs = random_programs(k, 60, 12, seed=levels, levels=levels)
    mixtures = lowest_mixtures(*programs)
    assert mixtures.proven.all()
    check(*programs, mixtures)


def test_a_program_of_elements_alone_is_the_query_itself():
    queries = np.array([[0.25, 0.75]])
    mixtures = lowest_mixtures(np.eye(2)[None], np.zeros((1, 2)), queries)
    assert mixtures.points.tolist() == [[0, 1]]
    np.testing.assert_allclose(mixtures.amounts, queries, atol=1e-15)


def test_unused_columns_change_nothing():
    points, costs, queries = random_programs(4, 20, 6, seed=1)
    padded = np.concatenate([points, np.zeros((6, 4, 9))], axis=2)
    plain = lowest_mixtures(points, costs, queries)
    other = lowest_mixtures(padded, np.pad(costs, ((0, 0), (0, 9))), queries)
    np.testing.assert_array_equal(plain.points, other.points)
    np.testing.assert_array_equal(plain.amounts, other.amounts)


def test_a_program_that_runs_out_of_steps_is_not_proven(monkeypatch):
    programs = random_programs(4, 40, 8, seed=2)
    monkeypatch.setattr(simplex, "_MAX_STEPS", 7)
    mixtures = lowest_mixtures(*programs)
    assert 0 < mixtures.proven.sum() < 8
    proven = np.flatnonzero(mixtures.proven)
    those = simplex.Mixtures(mixtures.points[proven], mixtures.amounts[proven], mixtures.proven[proven])
    check(*(values[proven] for values in programs), those)


@pytest.mark.parametrize("fault", ["basis", "potentials", "singular"])
def test_an_answer_without_its_proof_is_not_proven(fault, monkeypatch):
    programs = random_programs(3, 20, 4, seed=3)
    optimal = simplex._optimal_bases

    def broken(points, costs, queries):
        basis, potentials, reached = optimal(points, costs, queries)
        if fault == "basis":
            basis[1] = [0, 1, 2]  # feasible, but not the lowest
        elif fault == "potentials":
            potentials[1] -= 0.01
        else:
            basis[1] = basis[1, 0]
        return basis, potentials, reached

    assert lowest_mixtures(*programs).proven.all()
    monkeypatch.setattr(simplex, "_optimal_bases", broken)
    assert lowest_mixtures(*programs).proven.tolist() == [True, False, True, True]
