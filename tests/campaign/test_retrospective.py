"""Retrospective campaigns on a small made-up table: rock salts and others with energies from electronegativities."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from opengnome.campaign import retrospective, retrospective_measures, retrospective_model
from opengnome.campaign.retrospective import read_campaign, run_retrospective
from opengnome.campaign.retrospective_measures import (
    HitCurve,
    binomial_interval,
    hit_curve,
    repeats_interval,
    summarise,
)
from opengnome.campaign.retrospective_settings import RetrospectiveSettings, Strategy
from opengnome.campaign.retrospective_table import RetrospectiveTable, at_estimated_volumes, prepare_table
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.crystals.io import read_table, write_table
from opengnome.errors import CampaignError, SettingsError
from opengnome.hull import STABILITY_TOLERANCE
from opengnome.models import StructuralSettings, TrainingSettings
from opengnome.oracles import Calculation
from opengnome.oracles.recorded import RecordedOracle
from opengnome.oracles.relaxation import failed

DATA = Path(os.environ.get("OPENGNOME_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "mp_crystals.parquet"
CATIONS = {"Li": 0.98, "Na": 0.93, "K": 0.82, "Rb": 0.82, "Cs": 0.79, "Mg": 1.31}
CATIONS |= {"Ca": 1.0, "Sr": 0.95, "Ba": 0.89, "Zn": 1.65, "Y": 1.22, "La": 1.1}
ANIONS = {"O": 3.44, "S": 2.58, "Se": 2.55, "Te": 2.1, "F": 3.98, "Cl": 3.16}
ANIONS |= {"Br": 2.96, "I": 2.66, "N": 3.04, "P": 2.19, "As": 2.18, "Sb": 2.05}
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
POSITIONS = {
    "AB": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "AB2": [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]],
    "AB3": [[0, 0, 0], [0.25, 0.25, 0.25], [0.5, 0.5, 0.5], [0.75, 0.75, 0.75]],
}


def made_up_table() -> CrystalTable:
    """432 compounds and 24 elements; energies (eV/atom) fall with the difference of electronegativity."""
    rng = np.random.default_rng(0)
    crystals, energies = [], []
    for symbol in (*CATIONS, *ANIONS):
        crystals.append(Crystal(4.0 * FCC, np.zeros((1, 3)), np.array([ATOMIC_NUMBERS[symbol]])))
        energies.append(0.0)
    for (a, x), (b, y), kind in itertools.product(CATIONS.items(), ANIONS.items(), POSITIONS):
        numbers = [ATOMIC_NUMBERS[a]] + [ATOMIC_NUMBERS[b]] * (len(POSITIONS[kind]) - 1)
        crystals.append(Crystal(6.0 * FCC, np.array(POSITIONS[kind], dtype=float), np.array(numbers)))
        fraction = 1 / len(numbers)
        energies.append(-2.0 * (y - x) * fraction * (1 - fraction) + 0.3 * rng.random())
    ids = [f"m{i:04d}" for i in range(len(crystals))]
    return CrystalTable.from_crystals(crystals, ids, {"formation_energy_per_atom": energies})


def settings_of(**changes: object) -> RetrospectiveSettings:
    small = TrainingSettings(epochs=8, batch_size=32, learning_rate=5e-3, bfloat16=False)
    given: dict[str, object] = {
        "n_start": 180,
        "budget": 60,
        "n_rounds": 2,
        "n_members": 2,
        "model": StructuralSettings(width=16, edge_width=16, layers=1, n_basis=8),
        "training": small,
        "fine_tuning": small.model_copy(update={"epochs": 2}),
        "strategies": (
            Strategy(name="random", acquisition="random_unfiltered"),
            Strategy(name="energy", acquisition="decomposition_energy"),
            Strategy(name="spread", acquisition="probability_stable", diversity=0.1),
        ),
    }
    return RetrospectiveSettings.model_validate(given | changes)


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "made_up.parquet"
    write_table(path, made_up_table())
    return path


@pytest.fixture(scope="module")
def table(table_path: Path) -> RetrospectiveTable:
    return prepare_table(table_path, table_path.parent / "graphs", settings_of())


@pytest.fixture(scope="module")
def finished(table: RetrospectiveTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    run_retrospective(table, settings_of(), output, repeats=range(2))
    return output


def contents(output: Path) -> dict[str, object]:
    """Everything that was written of the rounds, but how long it took."""
    found = {}
    for path in sorted(output.glob("repeat-*/*/round-*.json")):
        record = json.loads(path.read_text())
        del record["metrics"]["seconds"]
        found[str(path.relative_to(output))] = record
    return found


def test_the_start_has_all_elements_and_is_the_same_for_a_repeat(table: RetrospectiveTable) -> None:
    start = table.start_rows(settings_of(), 0)
    assert set(np.flatnonzero(table.is_element)) <= set(start.tolist())
    assert len(start) == table.is_element.sum() + 180 == len(set(start.tolist()))
    assert (start == table.start_rows(settings_of(), 0)).all()
    assert set(start.tolist()) != set(table.start_rows(settings_of(), 1).tolist())


def test_a_campaign_spends_its_budget_on_crystals_it_did_not_know(table: RetrospectiveTable, finished: Path) -> None:
    for strategy in settings_of().strategies:
        rounds = read_campaign(finished / "repeat-00" / strategy.name)
        chosen = [identifier for record in rounds for identifier in record.ids]
        assert [len(record.ids) for record in rounds] == [30, 30]
        assert len(set(chosen)) == 60
        start = {table.table.ids[row] for row in table.start_rows(settings_of(), 0).tolist()}
        assert not start & set(chosen)
        for record in rounds:  # one crystal per composition in a round
            formulas = [table.table.reduced_formulas[table.row_of_id[i]] for i in record.ids]
            assert len(set(formulas)) == len(formulas)


def test_answers_are_those_of_the_table_and_hulls_those_of_what_was_known(
    table: RetrospectiveTable, finished: Path
) -> None:
    start = table.start_rows(settings_of(), 0)
    first, second = read_campaign(finished / "repeat-00" / "energy")
    rows = np.array([table.row_of_id[identifier] for identifier in first.ids])
    assert first.energies == pytest.approx(table.known.energies_per_atom[rows].tolist())
    assert first.hull_energies == first.initial_hull_energies
    at = [table.known.entries[table.row_of_id[identifier]].composition for identifier in second.ids]
    hull = table.hull(np.concatenate([start, rows]))
    assert second.hull_energies == pytest.approx([hull.energy_per_atom_at(c) for c in at], abs=1e-9)
    assert (np.array(second.hull_energies) <= np.array(second.initial_hull_energies) + 1e-9).all()


def test_the_model_finds_more_than_random_choice(table: RetrospectiveTable, finished: Path) -> None:
    """Energies follow from the elements here, so a model that learns anything must win."""
    found = {}
    for name in ("random", "energy"):
        curves = [
            hit_curve(
                table,
                table.start_rows(settings_of(), repeat),
                read_campaign(finished / f"repeat-{repeat:02d}" / name),
                within=0.05,
            )
            for repeat in range(2)
        ]
        found[name] = sum(curve.found(60) for curve in curves)
    assert found["energy"] > found["random"]


def test_a_killed_run_goes_on_to_the_same_end(
    table: RetrospectiveTable, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each piece of work that leaves a file: the first ensemble, then every round."""
    settings, written = settings_of(), retrospective.write_json
    only_first = settings.model_copy(update={"strategies": settings.strategies[1:2]})

    class Killed(BaseException):
        pass

    def write_and_die(path: Path, content: dict[str, object]) -> None:
        if path.name == "round-1.json" and not (path.parent / "seen").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "seen").touch()
            raise Killed  # the members are trained, the round is not written
        written(path, content)
        if path.name.startswith("round-"):
            raise Killed

    monkeypatch.setattr(retrospective, "write_json", write_and_die)
    deaths = 0
    while True:
        try:
            run_retrospective(table, only_first, tmp_path, repeats=[0])
            break
        except Killed:
            deaths += 1
    assert deaths == 3
    expected = {path: c for path, c in contents(finished).items() if path.startswith("repeat-00/energy/")}
    assert contents(tmp_path) == expected


def test_later_rounds_start_from_the_round_before_or_from_nothing(table: RetrospectiveTable, tmp_path: Path) -> None:
    maes = {}
    for initial in ("previous", "none"):
        settings = settings_of(initial=initial, strategies=(Strategy(name="energy"),))
        run_retrospective(table, settings, tmp_path / initial, repeats=[0])
        maes[initial] = [r.metrics["held_out_mae"] for r in read_campaign(tmp_path / initial / "repeat-00" / "energy")]
    assert maes["previous"][0] == maes["none"][0]
    assert maes["previous"][1] != maes["none"][1]


def test_members_are_not_kept_longer_than_needed(finished: Path) -> None:
    assert [p.parent.name for p in finished.rglob("*.safetensors")] == ["first-round"] * 4


def test_strategies_advance_together(table: RetrospectiveTable, tmp_path: Path) -> None:
    random = (
        Strategy(name="one", acquisition="random_unfiltered"),
        Strategy(name="two", acquisition="random_unfiltered"),
    )
    lines: list[str] = []
    run_retrospective(table, settings_of(strategies=random), tmp_path, repeats=[0], progress=lines.append)
    assert [line.split(":")[0] for line in lines] == [
        f"repeat 0, {name}, round {number}" for number in (1, 2) for name in ("one", "two")
    ]


def test_results_of_other_conditions_are_refused(table: RetrospectiveTable, finished: Path) -> None:
    with pytest.raises(CampaignError, match="n_start"):
        run_retrospective(table, settings_of(n_start=150), finished, repeats=[0])
    with pytest.raises(CampaignError, match="strategy 'energy'"):
        run_retrospective(table, settings_of(strategies=(Strategy(name="energy"),)), finished, repeats=[0])


def test_a_strategy_may_be_added_later(table: RetrospectiveTable, tmp_path: Path) -> None:
    one, two = (Strategy(name=name, acquisition="random_unfiltered") for name in ("one", "two"))
    for strategies in ((one,), (two,)):
        run_retrospective(table, settings_of(strategies=strategies), tmp_path, repeats=[0])
    result = summarise(table, settings_of(strategies=(one, two)), tmp_path, reference="one")
    assert set(result["strategies"]) == {"one", "two"}
    with pytest.raises(CampaignError, match="strategy 'one'"):
        run_retrospective(table, settings_of(strategies=(Strategy(name="one"),)), tmp_path, repeats=[0])


def test_the_first_ensemble_is_asked_once(
    table: RetrospectiveTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_asked: list[int] = []
    ask = retrospective_model.stored_energies
    monkeypatch.setattr(
        retrospective_model, "stored_energies", lambda *given: n_asked.append(len(given[2])) or ask(*given)
    )
    rules = ("decomposition_energy", "probability_stable", "lower_bound")
    strategies = tuple(Strategy(name=rule, acquisition=rule) for rule in rules)  # type: ignore[arg-type]
    strategies += (Strategy(name="among candidates", competitors="candidates"),)
    run_retrospective(table, settings_of(strategies=strategies), tmp_path, repeats=[0])
    assert len(n_asked) == 1 + len(strategies)  # all in the first round, and each in the second


def test_too_small_a_table_and_bad_settings_are_refused(table: RetrospectiveTable) -> None:
    with pytest.raises(SettingsError, match="too few"):
        table.start_rows(settings_of(n_start=400), 0)
    with pytest.raises(ValueError, match="different names"):
        settings_of(strategies=(Strategy(name="a"), Strategy(name="a")))
    assert sum(settings_of(budget=100, n_rounds=6).budgets) == 100


def test_the_truth_is_the_hull_of_everything(table: RetrospectiveTable) -> None:
    everything = table.hull(np.arange(len(table)))
    assert table.energy_above_hull == pytest.approx(everything.energies_above_hull()[: len(table)], abs=1e-9)


def test_total_energies_are_the_same_campaign(table: RetrospectiveTable, table_path: Path, tmp_path: Path) -> None:
    crystals = made_up_table()
    of_element = np.random.default_rng(3).uniform(-9.0, -1.0, 119)
    shifts = np.array([of_element[crystal.atomic_numbers].mean() for crystal in crystals])
    totals = np.array(crystals.column("formation_energy_per_atom")) + shifts
    path = tmp_path / "totals.parquet"
    write_table(path, crystals.with_column("energy_per_atom", totals))
    settings = settings_of(energy_column="energy_per_atom")
    other = prepare_table(path, table_path.parent / "graphs", settings)
    assert other.formation_energies == pytest.approx(table.formation_energies, abs=1e-9)
    assert other.energy_above_hull == pytest.approx(table.energy_above_hull, abs=1e-9)
    random = settings.model_copy(update={"strategies": settings.strategies[:1]})
    run_retrospective(other, random, tmp_path / "out", repeats=[0])
    for record in read_campaign(tmp_path / "out" / "repeat-00" / "random"):
        rows = [table.row_of_id[identifier] for identifier in record.ids]
        assert record.energies == pytest.approx(table.formation_energies[rows].tolist(), abs=1e-9)


def test_a_calculation_without_an_answer_is_spent_and_no_hit(
    table: RetrospectiveTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_answer_for_oxides(oracle: RecordedOracle, crystal: Crystal) -> Calculation:
        asked.append(crystal.reduced_formula)
        if 8 in crystal.atomic_numbers:
            return failed(crystal, "made to fail", identity=oracle.identity)
        return answered(oracle, crystal)

    answered = RecordedOracle.relax
    monkeypatch.setattr(RecordedOracle, "relax", no_answer_for_oxides)
    random = settings_of(strategies=settings_of().strategies[:1])
    run_retrospective(table, random, tmp_path, repeats=[0])
    rounds = read_campaign(tmp_path / "repeat-00" / "random")
    n_failed = sum("O" in formula for formula in asked)
    assert n_failed > 0
    assert len(asked) == len(set(asked)) == 60  # nothing is asked again
    assert sum(record.energies.count(None) for record in rounds) == n_failed
    assert sum(record.metrics["n_failed"] for record in rounds) == n_failed
    curve = hit_curve(table, table.start_rows(random, 0), rounds, within=np.inf)
    assert curve.found(60) == 60 - n_failed


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there (set OPENGNOME_DATA)")
def test_a_model_beats_random_choice_on_known_energies(tmp_path: Path) -> None:
    """Small cells of the Materials Project, energies by DFT: a network that has seen 800 of them."""
    everything = read_table(REAL)
    small = everything.filter(everything.n_atoms <= 6)
    is_element = np.array([Composition.from_formula(f).n_elements == 1 for f in small.reduced_formulas])
    rows = np.random.default_rng(0).choice(np.flatnonzero(~is_element), size=1200, replace=False)
    path = tmp_path / "small.parquet"
    write_table(path, small.take(np.concatenate([np.flatnonzero(is_element), rows])))
    settings = RetrospectiveSettings(
        n_start=800,
        budget=150,
        n_rounds=1,
        n_members=2,
        model=StructuralSettings(width=32, edge_width=32, layers=1, n_basis=16),
        strategies=(Strategy(name="energy", acquisition="decomposition_energy"),),
    )
    table = prepare_table(path, tmp_path / "graphs", settings)
    run_retrospective(table, settings, tmp_path / "out", repeats=[0])
    rounds = read_campaign(tmp_path / "out" / "repeat-00" / "energy")
    curve = hit_curve(table, table.start_rows(settings, 0), rounds, within=0.05)
    low, _ = binomial_interval(curve.found(150), 150)
    assert low > curve.n_targets / curve.n_pool


def test_estimated_volumes_depend_on_the_composition_only() -> None:
    table = made_up_table()
    scaled, left_out = at_estimated_volumes(table)
    squeezed = CrystalTable.from_crystals(
        [Crystal(c.lattice * 0.9, c.frac_coords, c.atomic_numbers) for c in table], table.ids
    )
    again, _ = at_estimated_volumes(squeezed)
    assert not left_out
    assert again.lattices == pytest.approx(scaled.lattices, rel=1e-9)
    assert (scaled.flat_frac_coords == table.flat_frac_coords).all()
    assert not np.allclose(scaled.lattices, table.lattices)


def test_a_composition_without_a_volume_is_named() -> None:
    table = CrystalTable.from_crystals([Crystal(4.0 * FCC, np.zeros((1, 3)), np.array([118]))])  # oganesson
    scaled, left_out = at_estimated_volumes(table)
    assert "Og" in left_out[0]
    assert scaled.lattices == pytest.approx(table.lattices)


def test_enrichment_and_area_of_curves_known_by_hand() -> None:
    perfect = HitCurve(np.ones(10, dtype=bool), n_pool=100, n_targets=20)
    assert perfect.enrichment(10) == pytest.approx(5.0)
    assert perfect.area == pytest.approx(1.0)
    as_random = HitCurve(np.array([False, False, True, False, False] * 2), n_pool=100, n_targets=20)
    assert as_random.enrichment(10) == pytest.approx(1.0)
    assert as_random.area == pytest.approx(0.0, abs=0.05)
    nothing = HitCurve(np.zeros(10, dtype=bool), n_pool=100, n_targets=20)
    assert nothing.area == pytest.approx(-0.25)  # -n/5 against 4n/5
    all_found = HitCurve(np.arange(100) < 20, n_pool=100, n_targets=20)
    assert all_found.enrichment(100) == 1.0
    assert all_found.area == pytest.approx(1.0)


def test_intervals() -> None:
    low, high = binomial_interval(50, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Wilson, by his formula
    assert repeats_interval([1.0]) is None
    assert repeats_interval([2.0, 1.0]) == (1.0, 2.0)
    # Student's t of 4 degrees of freedom is 2.7764 at 97.5 %; the standard error of 1..5 is sqrt(2.5 / 5)
    assert repeats_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)


def test_an_interval_over_repeats_covers_the_mean_as_often_as_it_says() -> None:
    """Five repeats whose enrichments differ by more than the draws of each: binomial pooling would cover far less."""
    rng = np.random.default_rng(0)
    samples = rng.normal(5.0, 1.0, (2000, 5))
    covered = [low <= 5.0 <= high for low, high in map(repeats_interval, samples.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_the_summary_agrees_with_the_rounds(table: RetrospectiveTable, finished: Path) -> None:
    result = summarise(table, settings_of(), finished, reference="energy")
    assert json.loads(json.dumps(result, allow_nan=False))["n_pool"] == 456 - 24 - 180
    assert set(result["strategies"]) == {"random", "energy", "spread"}
    spread = result["strategies"]["spread"]
    found, systems = [], []
    for repeat in range(2):
        ids = [i for record in read_campaign(finished / f"repeat-{repeat:02d}" / "spread") for i in record.ids]
        stable = [r for r in (table.row_of_id[i] for i in ids) if table.energy_above_hull[r] <= STABILITY_TOLERANCE]
        found.append(len(stable))
        systems.append(len({table.known.entries[row].composition.chemical_system for row in stable}))
    at = spread["targets"]["stable"]["at"]["60"]
    assert at["found"] == found
    assert spread["systems_with_a_find"] == systems
    assert result["strategies"]["energy"]["targets"]["stable"]["at"]["60"]["more_than_reference"] == 0.0
    share = result["share_of_targets"]["stable"]
    assert at["enrichment"] == pytest.approx(np.mean(found) / 60 / share, rel=0.05)
    assert spread["rounds"][0]["n_train"] > 100
    assert result["unfinished_campaigns"] == 0
    # here every composition has one crystal, so both draws are the same
    assert result["share_of_targets_one_per_composition"] == pytest.approx(result["share_of_targets"])


def test_a_summary_of_the_first_rounds(table: RetrospectiveTable, finished: Path) -> None:
    result = summarise(table, settings_of(), finished, reference="energy", n_rounds=1)
    of_rule = result["strategies"]["energy"]
    assert list(of_rule["targets"]["stable"]["at"]) == ["30"]
    assert len(of_rule["rounds"]) == 1


def repeated(finished: Path, folder: Path, n_repeats: int, spent: int = 30) -> Path:
    """The same two repeats over and over, as if drawn anew; "spread" spends `spent` in each second round."""
    for repeat in range(n_repeats):
        source = finished / f"repeat-{repeat % 2:02d}"
        for path in source.glob("*/round-*.json"):
            record = json.loads(path.read_text())
            if path.parent.name == "spread" and record["number"] == 2:
                lists = {name: value[:spent] for name, value in record.items() if isinstance(value, list)}
                record |= lists
            target = folder / f"repeat-{repeat:02d}" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(("n_repeats", "kind"), [(1, "binomial"), (2, "range of two repeats"),
                                                  (3, "Student's t over repeats")])  # fmt: skip
def test_what_an_interval_is_follows_from_the_number_of_repeats(
    table: RetrospectiveTable, finished: Path, tmp_path: Path, n_repeats: int, kind: str
) -> None:
    result = summarise(table, settings_of(), repeated(finished, tmp_path, n_repeats), reference="random")
    of_target = result["strategies"]["energy"]["targets"]["stable"]
    at = of_target["at"]["60"]
    assert at["interval_kind"] == kind
    low, high = at["interval"]
    assert low <= at["enrichment"] <= high
    assert (of_target["area"]["interval"] is None) == (at["more_than_reference_interval"] is None) == (n_repeats == 1)
    if n_repeats == 1:
        share = result["share_of_targets"]["stable"]
        assert at["interval"] == pytest.approx([x / share for x in binomial_interval(at["found"][0], 60)])
    else:
        values = [n / 60 / (result["share_of_targets"]["stable"]) for n in at["found"]]
        assert at["interval"] == pytest.approx(repeats_interval(values), rel=0.02)


def test_a_strategy_that_spent_less_is_told_where_it_got(
    table: RetrospectiveTable, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrospective_measures, "BUDGETS", (45, 1000))
    output = repeated(finished, tmp_path, 2, spent=20)
    result = summarise(table, settings_of(), output, reference="spread")
    assert result["budgets"] == [45, 60]
    spread, energy = (result["strategies"][name]["targets"]["stable"] for name in ("spread", "energy"))
    assert list(spread["at"]) == ["45"]
    assert spread["curve"]["calculations"][-1] == 50
    assert list(energy["at"]) == ["45", "60"]
    assert energy["at"]["45"]["more_than_reference"] is not None
    assert energy["at"]["60"]["more_than_reference"] is None, "the reference has not got so far"


def test_a_summary_of_nothing_is_refused(table: RetrospectiveTable, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="no campaign of 2 rounds"):
        summarise(table, settings_of(), tmp_path, reference="energy")
