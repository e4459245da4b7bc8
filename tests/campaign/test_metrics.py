"""What a round achieved, on a handful of candidates whose hits can be counted by hand."""

import math

import pytest
from made_up import FORMATION, calculated, choice, known_set, total

from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.conversion import entry_of, has_energy
from opengnome.campaign.events import Calculated, Choice
from opengnome.campaign.metrics import is_initial_hit, round_metrics
from opengnome.hull import STABILITY_TOLERANCE, Hull
from opengnome.oracles import Status

INITIAL_HULL = {
    "NaKCl2": (FORMATION["NaCl"] + FORMATION["KCl"]) / 2,
    "Na2KCl3": (2 * FORMATION["NaCl"] + FORMATION["KCl"]) / 3,
    "Na3OCl": (3 * FORMATION["Na2O"] + 2 * FORMATION["NaCl"]) / 5,
    "KO": FORMATION["K2O"] * 3 / 4,
}
"""Formation energy of the hull of the known set, eV/atom."""


def measure(*found: tuple[Choice, Calculated]) -> dict[str, float]:
    """Metrics of a round that chose and calculated these."""
    known = known_set()
    initial = Hull(known.entries)
    calculations = {c.crystal_id: c for _, c in found}
    entries = {i: entry_of(c, no_alignment(), level=known.level) for i, c in calculations.items() if has_energy(c)}
    return round_metrics(
        [c for c, _ in found],
        calculations,
        entries,
        initial_hull=initial,
        current_hull=initial.with_entries(tuple(entries.values())),
    )


def candidate(
    identifier: str,
    formula: str,
    formation: float | None,
    *,
    arms: tuple[str, ...] = ("model",),
    error: float = 0.0,
    std: float = 0.1,
) -> tuple[Choice, Calculated]:
    """A candidate predicted `error` too high; it explodes where it has no formation energy."""
    chosen = choice(
        identifier,
        formula,
        arms=arms,
        predicted=(formation or 0.0) + error,
        std=std,
        initial_hull=INITIAL_HULL[formula],
    )
    if formation is None:
        return chosen, calculated(identifier, formula, None, status=Status.EXPLODED)
    return chosen, calculated(identifier, formula, total(formula, formation))


def test_hits_against_the_initial_and_the_current_hull() -> None:
    metrics = measure(
        candidate("a", "NaKCl2", -2.20),  # below both hulls
        candidate("b", "Na2KCl3", -2.05),  # below the known hull (-2.033), above NaCl + NaKCl2 (-2.133)
        candidate("c", "Na3OCl", -1.30),  # above both
    )
    assert metrics["model.hits_initial"] == 2
    assert metrics["model.hits_current"] == 1
    assert metrics["model.hit_rate_initial"] == pytest.approx(2 / 3)
    assert metrics["model.hit_rate_current"] == pytest.approx(1 / 3)


def test_failed_calculations_stay_in_the_denominator() -> None:
    metrics = measure(candidate("a", "NaKCl2", -2.20), candidate("b", "KO", None), candidate("c", "Na3OCl", None))
    assert metrics["n_calculated"] == metrics["model.n_calculated"] == 3
    assert metrics["n_failed"] == metrics["model.n_failed"] == 2
    assert metrics["model.n_converged"] == 1
    assert metrics["model.hit_rate_initial"] == metrics["model.hit_rate_current"] == pytest.approx(1 / 3)


def test_the_energy_of_an_unconverged_calculation_is_no_hit() -> None:
    chosen, answer = candidate("a", "NaKCl2", -2.20)
    metrics = measure((chosen, answer.model_copy(update={"status": Status.UNCONVERGED.value})))
    assert metrics["model.n_failed"] == 1
    assert metrics["model.hits_initial"] == metrics["model.hits_current"] == 0


def test_each_arm_is_measured_alone_and_a_shared_candidate_in_each() -> None:
    metrics = measure(
        candidate("a", "NaKCl2", -2.20, arms=("model", "random_filtered"), error=0.1),
        candidate("b", "Na3OCl", -1.30, arms=("random_filtered",), error=-0.3),
        candidate("c", "Na2KCl3", -2.00, error=0.2),
    )
    assert metrics["n_calculated"] == 3
    assert metrics["model.n_calculated"] == metrics["random_filtered.n_calculated"] == 2
    assert metrics["model.hits_initial"] == metrics["random_filtered.hits_initial"] == 1
    assert metrics["model.bias"] == pytest.approx(0.15)
    assert metrics["random_filtered.bias"] == pytest.approx(-0.1)
    assert not [name for name in metrics if name.startswith("random_unfiltered")]


def test_errors_of_the_prediction() -> None:
    metrics = measure(
        candidate("a", "NaKCl2", -2.20, error=0.05, std=0.1),  # within one standard deviation
        candidate("b", "Na2KCl3", -2.05, error=-0.15, std=0.1),  # within two
        candidate("c", "Na3OCl", -1.30, error=0.40, std=0.1),  # outside
        candidate("d", "KO", None, error=9.0),  # no energy, so no error
    )
    assert metrics["model.mae"] == pytest.approx(0.20)
    assert metrics["model.median_error"] == pytest.approx(0.15)
    assert metrics["model.bias"] == pytest.approx(0.10)
    assert metrics["model.coverage_68"] == pytest.approx(1 / 3)
    assert metrics["model.coverage_95"] == pytest.approx(2 / 3)


def test_what_could_not_be_predicted_counts_as_a_hit_but_has_no_error() -> None:
    unpredicted = candidate("a", "NaKCl2", -2.20, arms=("random_unfiltered",), error=math.nan, std=math.nan)
    alone = measure(unpredicted)
    assert alone["random_unfiltered.hit_rate_initial"] == alone["random_unfiltered.hit_rate_current"] == 1
    assert "random_unfiltered.mae" not in alone
    beside = measure(unpredicted, candidate("b", "Na3OCl", -1.30, arms=("random_unfiltered",), error=0.2))
    assert beside["random_unfiltered.hit_rate_initial"] == 0.5
    assert beside["random_unfiltered.mae"] == pytest.approx(0.2)
    assert all(math.isfinite(value) for value in (alone | beside).values())


def test_precision_per_number_of_elements_is_the_models_and_counts_failures() -> None:
    metrics = measure(
        candidate("a", "NaKCl2", -2.20),
        candidate("b", "Na2KCl3", -2.05),
        candidate("c", "Na3OCl", -1.30),
        candidate("d", "Na3OCl", None),
        candidate("e", "KO", None),
        candidate("f", "KO", -1.0, arms=("random_filtered",)),
    )
    assert {name: metrics[name] for name in metrics if name.endswith("_elements")} == {
        "model.precision_2_elements": 0.0,
        "model.n_2_elements": 1.0,
        "model.precision_3_elements": 0.5,
        "model.n_3_elements": 4.0,
    }


def test_hits_far_below_the_known_hull_are_counted_apart() -> None:
    hull = INITIAL_HULL["NaKCl2"]
    metrics = measure(candidate("a", "NaKCl2", hull - 0.19), candidate("b", "NaKCl2", hull - 0.21))
    assert metrics["model.hits_initial"] == 2
    assert metrics["model.hits_initial_deep"] == 1


def test_of_two_polymorphs_only_the_lower_is_a_vertex() -> None:
    metrics = measure(candidate("a", "NaKCl2", -2.20), candidate("b", "NaKCl2", -2.15))
    assert metrics["model.hits_initial"] == 2
    assert metrics["model.hits_current"] == 1


@pytest.mark.parametrize(("above", "hit"), [(0.8 * STABILITY_TOLERANCE, True), (1.2 * STABILITY_TOLERANCE, False)])
def test_an_entry_within_the_tolerance_lies_on_the_hull(above: float, hit: bool) -> None:
    known = known_set()
    chosen, answer = candidate("a", "NaKCl2", INITIAL_HULL["NaKCl2"] + above)
    entry = entry_of(answer, no_alignment(), level=known.level)
    assert is_initial_hit(chosen, entry, Hull(known.entries)) is hit
    assert measure((chosen, answer))["model.hits_current"] == hit


def test_time_is_the_mean_over_all_calculations() -> None:
    slow, answer = candidate("a", "KO", None)
    metrics = measure((slow, answer.model_copy(update={"seconds": 5.0})), candidate("b", "NaKCl2", -2.2))
    assert metrics["seconds_per_calculation"] == 3.5


def test_a_round_without_candidates() -> None:
    assert measure() == {"n_calculated": 0.0, "n_failed": 0.0, "seconds_per_calculation": 0.0}
