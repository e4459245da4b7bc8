"""The compositional pipeline: what is planned, which formulas are chosen, and searches that can be killed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from campaign.made_up import calculated, known_set, total
from campaign.test_state import EVENTS, SETTINGS, choice, round_events
from opengnome.campaign import structure_search
from opengnome.campaign.actions import Calculate, CloseRound, ProposeCompositions, SearchComposition
from opengnome.campaign.compositions import (
    ScoredCompositions,
    _new_compositions,
    choose_compositions,
    lowest_energies,
)
from opengnome.campaign.events import Choice, CompositionsProposed, Event, Searched, Selected
from opengnome.campaign.execution import Ended, Unit
from opengnome.campaign.layout import Layout
from opengnome.campaign.selection import COMPOSITIONAL, RANDOM_COMPOSITIONS, Pool
from opengnome.campaign.settings import CompositionSearchSettings
from opengnome.campaign.state import fold, plan
from opengnome.campaign.structure_search import Search, SearchRule, search, search_compositions
from opengnome.crystals import Composition
from opengnome.errors import WorkFailedError
from opengnome.generation import CompositionSettings, RandomStructureSettings
from opengnome.hull import Hull
from opengnome.oracles import OracleSettings, Status, read_calculation

BOTH = SETTINGS.model_copy(update={"compositions": CompositionSearchSettings(budget=1, random=1)})
BEFORE = EVENTS[:4]
EMT = OracleSettings(name="ase", calculator="ase.calculators.emt:EMT")


def searched(name: str, n_completed: int = 10) -> Searched:
    return Searched(
        round=1,
        candidate_id=name,
        reduced_formula="KNa2Cl3",
        n_starts=12,
        n_completed=n_completed,
        n_lowest=3,
        seconds=9.0,
        path=f"searches/{name}.parquet",
    )


def composed(*names: str) -> CompositionsProposed:
    choices: tuple[Choice, ...] = tuple(choice(name).model_copy(update={"arms": (COMPOSITIONAL,)}) for name in names)
    return CompositionsProposed(round=1, counts={}, choices=choices, metrics={}, path="c")


def test_compositions_come_after_the_crystals_and_before_the_end_of_the_round():
    crystals: list[Event] = [*BEFORE, *round_events(1)[:-1]]  # without the end of the round
    assert plan(fold(crystals[:-1]), BOTH) == [Calculate(1, "b1")]
    assert plan(fold(crystals), SETTINGS) == [CloseRound(1)]  # no pipeline asked for
    assert plan(fold(crystals), BOTH) == [ProposeCompositions(1)]
    proposed = [*crystals, composed("rss-A", "rss-B")]
    assert plan(fold(proposed), BOTH) == [SearchComposition(1, "rss-A"), SearchComposition(1, "rss-B")]
    one = [*proposed, calculated("rss-A", "KNa2Cl3", -3.0), searched("rss-A")]
    assert plan(fold(one), BOTH) == [SearchComposition(1, "rss-B")]
    assert plan(fold([*one, searched("rss-B")]), BOTH) == [CloseRound(1)]
    assert [c.candidate_id for c in fold(one).round(1).choices] == ["a1", "b1", "rss-A", "rss-B"]
    assert fold([*one, composed("other"), searched("rss-A", 0)]) == fold(one)  # an event counts once


def scored(formulas: list[str], distances: list[float], stds: list[float]) -> ScoredCompositions:
    compositions = [Composition.from_formula(formula) for formula in formulas]
    pool = Pool([f"rss-{f}" for f in formulas], formulas, np.array(distances), np.array(stds))
    return ScoredCompositions(compositions, pool, np.zeros(len(formulas)), {})


def test_the_model_takes_the_most_probable_of_each_chemical_system():
    formulas = ["NaCl", "Na2Cl", "KCl", "K2Cl", "NaK", "LiCl"]
    # probabilities of being stable fall from left to right but for the last one, which is far from the hull
    table = scored(formulas, [-0.05, -0.04, -0.01, 0.0, 0.01, 0.9], [0.02] * 6)
    near = np.flatnonzero(table.pool.decomposition_energy <= 0.05)
    settings = CompositionSearchSettings(budget=3, random=4)
    arms = choose_compositions(table, near, settings, seed=1)
    assert [formulas[i] for i in arms[COMPOSITIONAL]] == ["NaCl", "KCl", "NaK"]
    systems = [table.compositions[i].chemical_system for i in arms[RANDOM_COMPOSITIONS]]
    assert len(systems) == len(set(systems)) == 4
    two = settings.model_copy(update={"max_per_system": 2})
    assert [formulas[i] for i in choose_compositions(table, near, two, seed=1)[COMPOSITIONAL]] == formulas[:3]
    assert choose_compositions(table, near, settings, seed=2)[RANDOM_COMPOSITIONS] != arms[RANDOM_COMPOSITIONS]


def test_the_most_probable_of_the_certain_is_taken_and_not_the_first_of_the_alphabet():
    formulas = ["AgCl", "BaS", "ZnS"]
    table = scored(formulas, [-0.5, -0.9, -0.8], [0.05, 0.05, 0.02])
    assert (table.pool.probability_stable == 1.0).all()
    arms = choose_compositions(table, np.arange(3), CompositionSearchSettings(budget=2), seed=1)
    assert [formulas[i] for i in arms[COMPOSITIONAL]] == ["ZnS", "BaS"]


def new_compositions(
    *, allowed: list[int], chosen: tuple[str, ...], **settings: object
) -> tuple[set[str], dict[str, int]]:
    """Formulas that a round proposes when nothing but the elements is known, and their fates."""
    proposals = CompositionSettings(max_elements=2, max_atoms=6)
    search = CompositionSearchSettings(budget=1, n_scored=10**6, proposals=proposals)
    selected = Selected(round=1, counts={}, choices=tuple(made_up_choice(f) for f in chosen), path="k")
    context = SimpleNamespace(
        settings=SimpleNamespace(compositions=search, seed=0),
        generation=SimpleNamespace(element_mask=lambda: np.isin(np.arange(100), allowed)),
        knowledge=SimpleNamespace(formulas=lambda state, number: ["Li", "Cl", "Xe"]),
    )
    compositions, fates = _new_compositions(context, fold([selected]), 1)  # type: ignore[arg-type]
    return {composition.reduced_formula for composition in compositions}, fates


def made_up_choice(formula: str) -> Choice:
    return choice(f"c-{formula}").model_copy(update={"reduced_formula": formula})


def test_what_the_crystals_of_the_round_are_is_not_new():
    every, fates = new_compositions(allowed=[3, 17], chosen=())
    assert "LiCl" in every
    assert fates["kept"] == len(every)
    left, _ = new_compositions(allowed=[3, 17], chosen=("LiCl",))
    assert left == every - {"LiCl"}


def test_formulas_of_which_no_crystal_can_be_made_are_counted_and_not_scored():
    """Nobody knows the volume of a compound of xenon."""
    formulas, fates = new_compositions(allowed=[9, 54], chosen=())
    assert not formulas
    assert fates["kept"] == 0 < fates["random crystals cannot be made"]


def test_formulas_larger_than_cells_are_refused_at_once():
    with pytest.raises(ValueError, match=r"proposals.max_atoms=30 need cells of 30.*structures.max_atoms=24"):
        CompositionSearchSettings(budget=1, proposals=CompositionSettings(max_atoms=30))
    CompositionSearchSettings(proposals=CompositionSettings(max_atoms=30))  # nothing is searched


def test_few_runs_make_no_label():
    known = known_set()
    hull = Hull(known.entries)
    answers = [calculated("rss-few", "KNa2Cl3", total("KNa2Cl3", -2.05)), calculated("rss-many", "NaKCl2", -9.0)]
    state = fold([composed("rss-few", "rss-many"), searched("rss-few", 9), searched("rss-many", 10), *answers])
    entry = {
        a.crystal_id: SimpleNamespace(
            id=a.crystal_id,
            composition=Composition.from_formula(a.reduced_formula),
            corrected_energy_per_atom=a.energy_per_atom,
        )
        for a in answers
    }
    knowledge = SimpleNamespace(known=known, entries=lambda state, before_round: tuple(entry.values()))
    context = SimpleNamespace(knowledge=knowledge, settings=BOTH)
    lowest = lowest_energies(context, state, 2, hull)  # type: ignore[arg-type]
    assert "KNa2Cl3" not in lowest
    assert lowest["KNaCl2"] == pytest.approx(hull.formation_energy_per_atom(entry["rss-many"].composition, -9.0))
    assert lowest["NaCl"] == pytest.approx(-2.0)
    assert not {"Na", "K", "O2"} & lowest.keys()


def test_a_search_ends_when_its_minimum_keeps_coming_back():
    rule = SearchRule(n_starts=100, min_completed=4, same_minimum=3, same_energy=0.01)
    assert not rule.is_over([-1.0, -1.0, -1.0])  # too few
    assert rule.is_over([-1.0, -1.0, -0.5, -1.001])
    assert not rule.is_over([-1.0, -1.0, -1.0, -1.5])  # a lower one


def make_search(root: Path, n_starts: int) -> Search:
    rule = SearchRule(n_starts=n_starts, min_completed=n_starts, same_minimum=n_starts, same_energy=0.0)
    return Search("CuAu", RandomStructureSettings(max_atoms=4), EMT, rule, 5, root / "calculations")


def test_a_killed_search_goes_on_with_the_crystal_it_was_at(tmp_path, monkeypatch):
    (tmp_path / "calculations").mkdir()
    relax = structure_search.work.calculate
    calls: list[Path] = []

    def killed_at_the_third(*, path, crystal, settings):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        relax(path=path, crystal=crystal, settings=settings)

    monkeypatch.setattr(structure_search.work, "calculate", killed_at_the_third)
    arguments = {"path": tmp_path / "runs.parquet", "log": tmp_path / "log", "of": make_search(tmp_path, 4)}
    with pytest.raises(KeyboardInterrupt):
        search(**arguments)
    assert not arguments["path"].exists()
    search(**arguments)
    runs = pq.read_table(arguments["path"]).to_pylist()
    assert [run["number"] for run in runs] == [0, 1, 2, 3]
    assert len(calls) == 5  # the third one twice, the others once
    assert calls[2] == calls[3]
    assert min(run["energy_per_atom"] for run in runs if run["status"] == "converged") < 0.2


def test_a_crystal_that_kills_its_worker_fails_alone_and_the_search_goes_on(tmp_path, monkeypatch):
    """With three units of a queue: the crystal at which the second search dies is to blame, no other."""
    root = tmp_path / "campaign"
    (root / "calculations").mkdir(parents=True)
    Layout(root).search(1, "a").parent.mkdir(parents=True)
    layout, rule = Layout(root), {"n_starts": 4, "min_completed": 4, "same_minimum": 4}
    settings = SETTINGS.model_copy(update={"oracle": EMT, "compositions": CompositionSearchSettings(budget=1, **rule)})
    deadly, deaths = [], []

    def run(label: str, units: list[Unit]) -> Iterator[Ended]:
        for unit in units:
            left = [path for _, _, path in unit.arguments["of"].starts() if not path.exists()]
            if not deaths and "CuAu" in unit.arguments["of"].formula:  # it died when two were done
                deadly.append(left[2])
                two = replace(unit.arguments["of"], rule=replace(unit.arguments["of"].rule, n_starts=2))
                search(path=tmp_path / "two.parquet", log=tmp_path / "log", of=two)
                deaths.append(label)
                yield Ended(unit, lost="its process died 3 times")
            else:
                unit.function(**unit.arguments)
                yield Ended(unit)

    context = SimpleNamespace(settings=settings, layout=layout, run=run)
    choices = tuple(
        choice(name).model_copy(update={"reduced_formula": f}) for name, f in (("a", "CuAu"), ("b", "CuPd"))
    )
    proposed = CompositionsProposed(round=1, counts={}, choices=choices, metrics={}, path="c")
    events = list(search_compositions(context, fold([proposed]), 1, ["a", "b"]))  # type: ignore[arg-type]
    assert [type(event).__name__ for event in events] == ["Calculated", "Searched"] * 2
    runs = pq.read_table(layout.search(1, "a")).to_pylist()
    assert [run["number"] for run in runs] == [0, 1, 2, 3]
    assert [run["reason"] for run in runs if run["status"] == "failed"] == ["its process died 3 times"]
    lost = read_calculation(deadly[0])
    assert (lost.status, lost.reason) == (Status.FAILED, "its process died 3 times")
    assert layout.calculation(Path(runs[2]["calculation"]).stem) == deadly[0]
    assert {event.n_starts for event in events if isinstance(event, Searched)} == {4}


def test_a_search_that_is_lost_with_nothing_left_to_do_stops_everything(tmp_path):
    (tmp_path / "calculations").mkdir()
    done = make_search(tmp_path, 1)
    search(path=tmp_path / "runs.parquet", log=tmp_path / "log", of=done)
    with pytest.raises(WorkFailedError, match="CuAu is lost with all its crystals calculated: its process died"):
        structure_search._record_loss(done, "its process died 3 times")
