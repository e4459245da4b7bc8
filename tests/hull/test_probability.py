"""Chances of being on the hull: the closed form, and joint draws against integrals and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from question_systems import random_compositions, random_entries, tied_systems
from scipy.special import ndtr
from scipy.stats import t as student

from opengnome.crystals import Composition
from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull import STABILITY_TOLERANCE, Entry, Hull
from opengnome.hull.probability import draw_energies, joint_probability_on_hull, probability_on_hull

quick = settings(max_examples=15, deadline=None, derandomize=True)


def compositions(*formulas: str) -> list[Composition]:
    return [Composition.from_formula(formula) for formula in formulas]


def test_one_candidate_has_the_normal_probability():
    distances, stds = np.array([0.0, 0.05, -0.05, 0.1, -0.1, math.nan]), np.array([0.05, 0.05, 0.05, 0.0, 0.0, 0.05])
    found = probability_on_hull(distances, stds)
    expected = ndtr((STABILITY_TOLERANCE - distances[:3]) / 0.05)
    assert found[:3] == pytest.approx(expected, abs=1e-15)
    assert found[3:5].tolist() == [0.0, 1.0]
    assert math.isnan(found[5])
    assert probability_on_hull(0.0, 0.05, tolerance=0.0) == 0.5
    assert probability_on_hull(STABILITY_TOLERANCE, 0.0) == 1.0
    assert probability_on_hull(np.zeros((2, 1)), np.ones((1, 3))).shape == (2, 3)
    heavy = probability_on_hull(0.1, 0.05, error_cdf=lambda x: student.cdf(x, df=3))
    assert heavy == pytest.approx(student.cdf((STABILITY_TOLERANCE - 0.1) / 0.05, df=3))
    with pytest.raises(HullError, match="cannot be negative"):
        probability_on_hull(0.1, -0.05)


def test_draws_belong_to_the_id_and_the_seed():
    ids, means, stds = ["a", "b", "c"], [0.0, 1.0, 2.0], [0.1, 0.2, 0.0]
    draws = draw_energies(ids, means, stds, n_draws=4000, seed=3)
    assert draws.mean(axis=0) == pytest.approx(means, abs=0.02)
    assert draws.std(axis=0) == pytest.approx(stds, abs=0.01)
    assert abs(np.corrcoef(draws[:, :2].T)[0, 1]) < 0.06
    shuffled = draw_energies(["c", "a"], [2.0, 0.0], [0.0, 0.1], n_draws=4000, seed=3)
    assert (shuffled == draws[:, [2, 0]]).all()
    assert not (draw_energies(ids, means, stds, n_draws=4000, seed=4)[:, 0] == draws[:, 0]).any()
    shared = draw_energies(["a", "b"], [0.0, 0.0], [0.1, 0.1], n_draws=4000, seed=3, common_std=0.08)
    assert shared.std(axis=0) == pytest.approx([0.1, 0.1], abs=0.005)
    assert np.corrcoef(shared.T)[0, 1] == pytest.approx(0.64, abs=0.04)


@pytest.mark.parametrize(
    ("ids", "stds", "options", "message"),
    [
        (["a", "a"], [0.1, 0.1], {}, "'a'"),
        (["a", "b"], [0.1], {}, "give one each"),
        (["a", "b"], [0.1, -0.1], {}, "between zero and the smallest"),
        (["a", "b"], [0.1, 0.2], {"common_std": 0.15}, "between zero and the smallest"),
        (["a", "b"], [0.1, 0.2], {"n_draws": 0}, "at least one"),
    ],
)
def test_draws_that_make_no_sense(ids, stds, options, message):
    with pytest.raises(HullError, match=message):
        draw_energies(ids, np.zeros(len(ids)), stds, **{"n_draws": 10, "seed": 0, **options})


def test_alone_the_joint_probability_is_the_closed_form(lithium_iron_oxides):
    (candidate,) = compositions("Li5FeO4")
    hull_energy = lithium_iron_oxides.energy_per_atom_at(candidate)
    draws = draw_energies(["x"], [hull_energy + 0.03], [0.05], n_draws=20000, seed=0)
    found = joint_probability_on_hull(lithium_iron_oxides, [candidate], draws)
    expected = probability_on_hull(0.03, 0.05)
    assert abs(found.probabilities[0] - expected) < 4 * found.standard_errors[0]
    assert found.standard_errors[0] == pytest.approx(math.sqrt(expected * (1 - expected) / 20000), rel=0.02)
    assert found.expected_n_stable == found.probabilities[0]


def test_two_polymorphs_share_what_one_would_have(lithium_iron_oxides):
    pair = compositions("Li5FeO4", "Li10Fe2O8")
    hull_energy = lithium_iron_oxides.energy_per_atom_at(pair[0])
    draws = draw_energies(["x", "y"], [hull_energy, hull_energy], [0.05, 0.05], n_draws=20000, seed=0)
    found = joint_probability_on_hull(lithium_iron_oxides, pair, draws, tolerance=0.0)
    # The lower of two equal ones, below the hull: (1 - 1/2 * 1/2) / 2 each.
    assert found.probabilities == pytest.approx([0.375, 0.375], abs=4 * found.standard_errors.max())


def test_a_deep_neighbour_takes_the_place_and_a_far_one_does_not(lithium_iron_oxides):
    candidates = compositions("Li5FeO4", "Li3FeO3", "LiFe")
    energies = np.array([lithium_iron_oxides.energy_per_atom_at(c) for c in candidates]) - [1.0, 0.01, 0.01]
    found = joint_probability_on_hull(lithium_iron_oxides, candidates, energies[None])
    assert found.probabilities.tolist() == [1.0, 0.0, 1.0]
    alone = joint_probability_on_hull(lithium_iron_oxides, candidates[1:], energies[None, 1:])
    assert alone.probabilities.tolist() == [1.0, 1.0]
    assert found.expected_n_stable == 2.0


def brute_force(hull: Hull, candidates, draws: np.ndarray, tolerance: float) -> np.ndarray:
    """A new hull for each draw, all candidates added."""
    on_hull = np.zeros(draws.shape, dtype=bool)
    for draw, energies in enumerate(draws):
        new = [Entry(f"new-{i}", c, float(e), level="PBE") for i, (c, e) in enumerate(zip(candidates, energies))]
        joint = hull.with_entries(new)
        on_hull[draw] = joint.distances_from_hull(candidates, energies) <= tolerance
    return on_hull.mean(axis=0)


@pytest.mark.parametrize("n_elements", [1, 2, 3, 4])
def test_equals_a_new_hull_for_every_draw(n_elements):
    hull = Hull(random_entries(n_elements, 5 * n_elements, seed=n_elements))
    candidates = random_compositions(list(hull.elemental_references), 12, seed=9)
    ids = [str(i) for i in range(len(candidates))]
    means = np.array([hull.energy_per_atom_at(c) for c in candidates])
    draws = draw_energies(ids, means, np.full(len(ids), 0.1), n_draws=40, seed=1)
    found = joint_probability_on_hull(hull, candidates, draws, tolerance=1e-4)
    assert found.probabilities == pytest.approx(brute_force(hull, candidates, draws, 1e-4), abs=1e-12)


@quick
@given(tied_systems(smallest=2))
def test_equals_a_new_hull_where_everything_ties(entries):
    hull = Hull(entries)
    candidates = random_compositions(list(hull.elemental_references), 6, seed=3, largest=3)
    steps = np.random.default_rng(0).integers(-2, 3, (8, len(candidates))) / 4
    draws = np.array([hull.energy_per_atom_at(c) for c in candidates]) + steps
    found = joint_probability_on_hull(hull, candidates, draws, tolerance=1e-6)
    assert found.probabilities == pytest.approx(brute_force(hull, candidates, draws, 1e-6), abs=1e-12)


def test_seven_elements_and_formation_energies():
    hull = Hull(random_entries(7, 20, seed=7))
    elements = list(hull.elemental_references)
    candidates = [Composition.from_counts(dict.fromkeys(elements, 1)), *random_compositions(elements, 3, seed=1)]
    draws = np.array([hull.energy_per_atom_at(c) for c in candidates]) + np.array([[-0.1, 0.1, -0.2, 0.0]] * 2)
    found = joint_probability_on_hull(hull, candidates, draws)
    assert found.probabilities == pytest.approx(brute_force(hull, candidates, draws, STABILITY_TOLERANCE))
    formation = draws + np.array([hull.formation_energy_per_atom(c, 0.0) for c in candidates])
    again = joint_probability_on_hull(hull, candidates, formation, formation_energies=True)
    assert (again.probabilities == found.probabilities).all()


def test_a_candidate_without_a_prediction_has_no_chance_and_disturbs_nobody(lithium_iron_oxides):
    candidates = compositions("Li5FeO4", "Li5FeO4", "LiFe")
    hull_energies = np.array([lithium_iron_oxides.energy_per_atom_at(c) for c in candidates])
    draws = np.tile(hull_energies - 0.1, (3, 1))
    draws[:, 1] = math.nan
    found = joint_probability_on_hull(lithium_iron_oxides, candidates, draws)
    assert found.probabilities[[0, 2]].tolist() == [1.0, 1.0]
    assert np.isnan([found.probabilities[1], found.standard_errors[1]]).all()
    assert found.expected_n_stable == 2.0
    with pytest.raises(HullError, match="give \\(draws, candidates\\)"):
        joint_probability_on_hull(lithium_iron_oxides, candidates, hull_energies)
    with pytest.raises(MissingReferenceError, match="Co"):
        joint_probability_on_hull(lithium_iron_oxides, compositions("CoO"), [[0.0]])
