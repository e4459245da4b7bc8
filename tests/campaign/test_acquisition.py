import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from opengnome.campaign.acquisition import (
    distances_among_candidates,
    expected_improvement,
    log_expected_improvement,
    probability_stable,
    scores,
    spread_over_systems,
)
from opengnome.campaign.selection import MODEL, Pool, choose
from opengnome.campaign.settings import FOR_DIGEST, CampaignSettings, RoundSettings
from opengnome.crystals import Composition
from opengnome.errors import SettingsError
from opengnome.hull import CompositionArrays, Entry, Hull
from opengnome.settings import validate

RULES = ("probability_stable", "decomposition_energy", "expected_improvement", "lower_bound")


def pool_of(formulas: list[str], energies: list[float], stds: list[float] | None = None) -> Pool:
    ids = [f"c{i}" for i in range(len(formulas))]
    return Pool(ids, formulas, np.array(energies), np.array(stds if stds is not None else [0.05] * len(formulas)))


def chosen_by(pool: Pool, **settings: object) -> list[int]:
    everything = np.arange(len(pool.ids))
    return choose(pool, everything, RoundSettings.model_validate(settings), seed=3)[MODEL]


@pytest.mark.parametrize(("distance", "std"), [(0.0, 0.1), (-0.2, 0.05), (0.04, 0.03), (0.3, 0.1), (-1.0, 0.5)])
def test_expected_improvement_is_the_integral_it_stands_for(distance: float, std: float) -> None:
    integral, _ = quad(lambda e: -e * norm.pdf(e, distance, std), distance - 12 * std, 0.0, epsabs=0, epsrel=1e-10)
    assert expected_improvement(np.array([distance]), np.array([std]))[0] == pytest.approx(integral, rel=1e-8)


def test_expected_improvement_by_drawing_energies() -> None:
    drawn = np.random.default_rng(1).normal(0.02, 0.08, 400_000)
    expected = expected_improvement(np.array([0.02]), np.array([0.08]))[0]
    assert np.maximum(0.0, -drawn).mean() == pytest.approx(expected, rel=0.01)


def test_the_logarithm_is_smooth_where_its_branches_meet_and_never_underflows() -> None:
    z = np.array([-1 - 1e-9, -1 + 1e-9, -1e4 - 1e-3, -1e4 + 1e-3])
    logs = log_expected_improvement(-z, np.ones(4))
    assert logs[0] == pytest.approx(logs[1], abs=1e-7)
    assert logs[2] == pytest.approx(logs[3], rel=1e-6)
    distances = np.concatenate([np.linspace(-2, 2, 401), [50.0, 1e3, 1e5]])
    all_logs = log_expected_improvement(distances, np.full(len(distances), 0.01))
    assert np.isfinite(all_logs).all()
    assert (np.diff(all_logs) < 0).all()  # lower is always better, however far above the hull


def test_a_certain_energy_improves_by_its_depth() -> None:
    assert expected_improvement(np.array([-0.3]), np.zeros(1))[0] == pytest.approx(0.3)
    assert probability_stable(np.array([-0.3, 0.3]), np.zeros(2)).tolist() == [1.0, 0.0]


def test_each_rule_prefers_what_its_formula_says() -> None:
    # a: surely a little below the hull; b: lowest mean; c: above the hull, but nobody knows by how much
    pool = pool_of(["NaCl", "KCl", "LiF"], [-0.02, -0.10, 0.03], [0.002, 0.08, 0.4])
    assert chosen_by(pool, acquisition="probability_stable")[0] == 0
    assert chosen_by(pool, acquisition="decomposition_energy")[0] == 1
    assert chosen_by(pool, acquisition="lower_bound", exploration=1.0)[0] == 2
    assert chosen_by(pool, acquisition="lower_bound", exploration=0.0)[0] == 1
    assert chosen_by(pool, acquisition="expected_improvement") == [2, 1, 0]


@pytest.mark.parametrize("rule", RULES)
def test_without_diversity_a_spread_choice_is_the_plain_one(rule: str) -> None:
    rng = np.random.default_rng(4)
    distances, stds = rng.normal(0, 0.1, 60), rng.uniform(0.01, 0.2, 60)
    ids, systems = [f"c{i:02d}" for i in range(60)], [f"S{i % 7}" for i in range(60)]
    spread = spread_over_systems(rule, distances, stds, systems, ids, n=20, diversity=0.0)  # type: ignore[arg-type]
    assert spread == np.argsort(scores(rule, distances, stds), kind="stable")[:20].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_a_spread_choice_is_greedy(rule: str) -> None:
    """Against the definition, computed plainly for every step."""
    rng = np.random.default_rng(5)
    distances, stds = rng.normal(0, 0.1, 40), rng.uniform(0.01, 0.2, 40)
    ids, systems = [f"c{i:02d}" for i in range(40)], [f"S{i % 5}" for i in range(40)]
    expected: list[int] = []
    for _ in range(25):
        penalty = np.array([0.05 * sum(systems[j] == system for j in expected) for system in systems])
        score = scores(rule, distances + penalty, stds)  # type: ignore[arg-type]
        expected.append(
            min((i for i in range(40) if i not in expected), key=lambda i: (score[i], distances[i], ids[i]))
        )
    found = spread_over_systems(rule, distances, stds, systems, ids, n=25, diversity=0.05)  # type: ignore[arg-type]
    assert found == expected


def test_diversity_takes_another_system_before_the_second_of_the_same() -> None:
    pool = pool_of(["Na2O", "NaO2", "KCl"], [-0.30, -0.29, -0.25])
    assert chosen_by(pool, acquisition="decomposition_energy", budget=2) == [0, 1]
    assert chosen_by(pool, acquisition="decomposition_energy", budget=2, diversity=0.1) == [0, 2]
    assert chosen_by(pool, acquisition="decomposition_energy", budget=3, diversity=0.02) == [0, 1, 2]


def test_certainty_does_not_end_the_order() -> None:
    """From eight deviations below the hull on every probability is one."""
    pool = pool_of(["KCl", "Na2O", "NaO2", "LiCl"], [-0.9, -1.2, -1.1, -1.0], [0.1, 0.1, 0.1, 0.05])
    assert (pool.probability_stable == 1.0).all()
    assert chosen_by(pool, budget=4) == [3, 1, 2, 0]  # -20, -12, -11 and -9 deviations
    assert chosen_by(pool, budget=3, diversity=0.25) == [3, 1, 0]  # NaO2 counts as 8.5 deviations below


def test_spreading_more_than_there_is_gives_everything_once() -> None:
    pool = pool_of(["Na2O", "NaO2", "KCl"], [-0.3, -0.2, -0.1])
    assert sorted(chosen_by(pool, budget=10, diversity=0.1)) == [0, 1, 2]


def test_random_is_a_seeded_draw_from_what_was_kept() -> None:
    pool = pool_of([f"Li{i + 1}O" for i in range(30)], np.linspace(-1, 1, 30).tolist())
    kept = np.arange(5, 25)
    settings = RoundSettings(budget=8, acquisition="random")
    one = choose(pool, kept, settings, seed=1)[MODEL]
    assert one == choose(pool, kept, settings, seed=1)[MODEL] != choose(pool, kept, settings, seed=2)[MODEL]
    assert len(one) == 8
    assert set(one) <= set(kept.tolist())


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(SettingsError, match="no effect"):
        validate(RoundSettings, {"acquisition": "random", "diversity": 0.1})
    with pytest.raises(SettingsError, match="expected_improvement"):
        validate(RoundSettings, {"acquisition": "improvement"})


def test_unused_rules_leave_the_name_of_a_campaign_as_it_was() -> None:
    hashed = RoundSettings(competitors="known").model_dump(mode="json", context=FOR_DIGEST)
    assert not {"exploration", "diversity", "competitors"} & set(hashed)
    written = RoundSettings().model_dump(mode="json")
    plain = CampaignSettings()
    spread = plain.model_copy(update={"rounds": RoundSettings(diversity=0.1)})
    assert RoundSettings.model_validate(written) == RoundSettings()
    assert spread.digest != plain.digest
    assert spread.model_dump()["rounds"]["diversity"] == 0.1


def test_distances_among_candidates_are_those_to_the_hull_of_the_others() -> None:
    known = [
        Entry("Na", Composition.from_formula("Na"), -1.3, level="x"),
        Entry("O", Composition.from_formula("O"), -4.9, level="x"),
        Entry("Na2O", Composition.from_formula("Na2O"), -1.0 - 7.5 / 3, level="x"),
    ]
    formulas, formation = ["NaO", "NaO2", "Na3O"], np.array([-1.5, -0.2, np.nan])
    compositions = CompositionArrays.from_compositions([Composition.from_formula(f) for f in formulas])
    found = distances_among_candidates(Hull(known), ["a", "b", "c"], compositions, formation)
    # NaO: between Na2O (-1.0) and oxygen; b lies above that line, so the known hull decides: -0.75
    assert found[0] == pytest.approx(-1.5 + 0.75)
    # NaO2 competes with the candidate NaO (-1.5) and oxygen: -1.5 * 2 / 3
    assert found[1] == pytest.approx(-0.2 + 1.0)
    assert np.isnan(found[2])
