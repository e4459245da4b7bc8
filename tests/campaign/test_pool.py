"""From shard files to chosen candidates, on five candidates whose distances can be worked out by hand."""

import io
import math
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up import CURRENT_HULL, INITIAL_HULL, calculated, choice, known_set, layout_in, total

from opengnome.campaign import CampaignSettings, Progress
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.context import Context
from opengnome.campaign.events import Calculated, EnsembleAssembled, Event, RoundOpened, Selected, ShardScreened
from opengnome.campaign.hull_file import read_hull
from opengnome.campaign.journal import Journal
from opengnome.campaign.judging import hull_formation_energies, judged
from opengnome.campaign.layout import Layout
from opengnome.campaign.pool import select_candidates
from opengnome.campaign.screening import screen
from opengnome.campaign.shards import HULL_KEY
from opengnome.campaign.state import CampaignState, fold
from opengnome.crystals import Composition, CrystalTable
from opengnome.crystals.io import read_table, write_table
from opengnome.hull import Hull
from report.synthetic_campaign import grid_crystal

Candidate = tuple[str, str, float, float]
"""Id, formula, predicted formation energy in eV/atom, its standard deviation."""
SHARDS: tuple[tuple[Candidate, ...], ...] = (
    (("e", "NaKO", math.nan, math.nan), ("c", "NaK2Cl3", -2.13, 0.10)),
    (),
    (("b", "Na2KCl3", -2.14, 0.02), ("a", "Na2KCl3", -2.15, 0.02), ("d", "Na3OCl", -1.20, 0.05)),
)
PREDICTED = {identifier: energy for shard in SHARDS for identifier, _, energy, _ in shard}
FORMULAS = {identifier: formula for shard in SHARDS for identifier, formula, _, _ in shard}


def shard_table(candidates: tuple[Candidate, ...]) -> CrystalTable:
    """As `work.screen` leaves it, but for the distances to the hull: selections measure what is not measured."""
    table = CrystalTable.from_crystals([grid_crystal(c[1]) for c in candidates], [c[0] for c in candidates])
    columns = {
        "method": ["ionic_substitution" for _ in candidates],
        "parent_ids": [["known-NaCl", c[0]] for c in candidates],
        "replaced": [f"for {c[0]}" for c in candidates],
        "probability": np.full(len(candidates), 0.01),
        "formation_energy_per_atom": np.array([c[2] for c in candidates], dtype=float),
        "spread": np.full(len(candidates), 0.01),
        "std": np.array([c[3] for c in candidates], dtype=float),
        "volume_scale": np.array([1.02 if math.isfinite(c[2]) else math.nan for c in candidates], dtype=float),
    }
    arrow = table.arrow
    for name, values in columns.items():
        arrow = CrystalTable(arrow).with_column(name, values).arrow
    return CrystalTable(arrow)


def journaled(layout: Layout, events: list[Event]) -> CampaignState:
    with Journal(layout.journal) as journal:
        for event in events:
            journal.append(event)
        return fold(journal)


def second_round(
    layout: Layout, order: tuple[int, ...] = (0, 1, 2), shards: tuple[tuple[Candidate, ...], ...] = SHARDS
) -> CampaignState:
    """The shards of round 2 on disk and in the journal, arrived in `order`."""
    found = calculated("found", "NaKCl2", total("NaKCl2", -2.2))
    tried = Selected(round=1, counts={}, choices=(choice("found", "NaKCl2"),), path="p")
    events: list[Event] = [no_alignment(), tried, found]
    events.append(RoundOpened(round=2, n_parents=9, n_shards=3, n_training=5, hull_digest="h"))
    events.append(EnsembleAssembled(round=2, path="e", digest="d", metrics={}))
    for shard in order:
        path = layout.shard(2, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, shard_table(shards[shard]))
        counts = {"proposed": 10 + shard, "duplicate": 10, "kept": len(shards[shard])}
        events.append(ShardScreened(round=2, shard=shard, path=layout.relative(path), counts=counts))
    return journaled(layout, events)


def refuse() -> Executor:
    raise AssertionError("a selection needs no worker")


def context_of(root: Path, progress: Progress | None = None, **rounds: Any) -> Context:
    known = known_set()
    write_table(root / "known.parquet", known.table.with_column("energy_per_atom", known.energies_per_atom))
    settings = CampaignSettings.model_validate(
        {
            "known": {"source": str(root / "known.parquet"), "level": known.level},
            "rounds": {"budget": 1, "random_filtered": 1, "random_unfiltered": 9} | rounds,
        }
    )
    return Context(root, settings, make_executor=refuse, progress=progress or Progress(quiet=True))


def select(root: Path, state: CampaignState, progress: Progress | None = None, **rounds: Any) -> Selected:
    return select_candidates(context_of(root, progress, **rounds), state, 2)


def test_counts_of_every_filter(tmp_path: Path) -> None:
    selected = select(tmp_path, second_round(layout_in(tmp_path)))
    union = len(selected.choices)
    assert selected.counts == {
        "proposed": 33,
        "duplicate": 30,
        "kept": 5,
        "generated": 5,
        "predicted": 4,
        "within_window": 3,
        "lowest_per_composition": 2,
        "chosen_model": 1,
        "chosen_random_filtered": 1,
        "chosen_random_unfiltered": 4,
        "chosen": union,
    }
    assert selected.round == 2
    assert union in (4, 5), "one per composition, and both Na2KCl3 when the arms disagree"


def test_the_model_takes_the_likeliest_and_every_arm_is_named(tmp_path: Path) -> None:
    selected = select(tmp_path, second_round(layout_in(tmp_path)))
    arms = {c.candidate_id: c.arms for c in selected.choices}
    assert [i for i, names in arms.items() if "model" in names] == ["a"], "a is 17 meV/atom below the hull"
    assert {i for i, names in arms.items() if "random_filtered" in names} <= {"a", "c"}
    unfiltered = [FORMULAS[i] for i, names in arms.items() if "random_unfiltered" in names]
    assert sorted(unfiltered) == sorted(set(FORMULAS.values()))
    assert list(arms) == sorted(arms)


def test_what_other_candidates_undercut_comes_later_when_they_compete(tmp_path: Path) -> None:
    """Na3KO2 is predicted 100 meV/atom below the known hull, but 50 above Na2O and NaKO as that is predicted."""
    deep = (("x", "NaKO", -1.60, 0.02), ("y", "Na3KO2", -1.45, 0.02), ("z", "Na3OCl", -1.70, 0.02))
    taken = {}
    for competitors in ("known", "candidates"):
        root = tmp_path / competitors
        state = second_round(layout_in(root), shards=(deep, (), ()))
        selected = select(root, state, budget=2, acquisition="decomposition_energy", competitors=competitors)
        taken[competitors] = {c.candidate_id for c in selected.choices if "model" in c.arms}
        by_id = {c.candidate_id: c for c in selected.choices}
        assert by_id["y"].predicted_decomposition_energy == pytest.approx(-1.45 + (3 * 1.4 + 3 * 1.3) / 6)
    assert taken == {"known": {"x", "y"}, "candidates": {"x", "z"}}


def test_a_choice_carries_prediction_hulls_and_provenance(tmp_path: Path) -> None:
    selected = select(tmp_path, second_round(layout_in(tmp_path)))
    choices = {c.candidate_id: c for c in selected.choices}
    for identifier in ("a", "c", "d"):
        chosen, formula = choices[identifier], FORMULAS[identifier]
        assert chosen.reduced_formula == grid_crystal(formula).reduced_formula
        assert chosen.hull_energy_per_atom == pytest.approx(CURRENT_HULL[formula])
        assert chosen.initial_hull_energy_per_atom == pytest.approx(INITIAL_HULL[formula])
        assert chosen.predicted_formation_energy_per_atom == pytest.approx(PREDICTED[identifier])
        distance = PREDICTED[identifier] - CURRENT_HULL[formula]
        assert chosen.predicted_decomposition_energy == pytest.approx(distance)
        normal = 0.5 * math.erfc(distance / chosen.predicted_std / math.sqrt(2))
        assert chosen.probability_stable == pytest.approx(normal)
        assert chosen.parent_ids == ("known-NaCl", identifier)
        assert (chosen.method, chosen.replaced) == ("ionic_substitution", f"for {identifier}")
        assert chosen.volume_scale == 1.02
    assert choices["e"].arms == ("random_unfiltered",)
    assert math.isnan(choices["e"].predicted_formation_energy_per_atom)
    assert choices["e"].hull_energy_per_atom == pytest.approx(CURRENT_HULL["NaKO"])


def test_the_selection_survives_the_journal_with_what_could_not_be_predicted(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    selected = select(tmp_path, second_round(layout))
    read_back = journaled(layout, [selected]).round(2).selection
    assert read_back is not None
    assert repr(read_back) == repr(selected)  # NaN differs from itself, its text does not


def test_the_chosen_table_holds_the_crystals_as_generated(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    selected = select(tmp_path, second_round(layout))
    chosen = read_table(layout.chosen(2))
    assert chosen.ids == [c.candidate_id for c in selected.choices]
    for identifier, crystal in zip(chosen.ids, chosen, strict=True):
        assert crystal == grid_crystal(FORMULAS[identifier])


def test_the_kept_file_has_what_may_be_chosen_and_where_it_is(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    selected = select(tmp_path, second_round(layout), random_unfiltered=0)
    assert tmp_path / selected.path == layout.kept(2)
    kept = pq.read_table(layout.kept(2)).to_pylist()
    assert [row["id"] for row in kept] == ["a", "c"], "the most promising first"
    for row in kept:
        assert row["id"] == SHARDS[row["shard"]][row["row"]][0]
        assert row["hull_energy_per_atom"] == pytest.approx(CURRENT_HULL[FORMULAS[row["id"]]])
        distance = PREDICTED[row["id"]] - CURRENT_HULL[FORMULAS[row["id"]]]
        assert row["predicted_decomposition_energy"] == pytest.approx(distance)


def measured(path: Path, table: CrystalTable, hull: Hull, digest: str) -> None:
    """A shard as a worker leaves it."""
    arrow = judged(table, hull).arrow.replace_schema_metadata({HULL_KEY: digest.encode()})
    write_table(path, CrystalTable(arrow))


def test_distances_that_workers_measured_are_taken(tmp_path: Path) -> None:
    """Told by a hull that is nobody's: its elements alone, so that everything is deep below it."""
    state = second_round(layout_in(tmp_path))
    context = context_of(tmp_path)
    hull = context.knowledge.hull(state, before_round=2)
    elements = Hull([e for e in hull.entries if len(e.composition.counts) == 1])
    for number, candidates in enumerate(SHARDS):
        measured(context.layout.shard(2, number), shard_table(candidates), elements, hull.digest)
    selected = select_candidates(context, state, 2)
    assert selected.counts["within_window"] == 4
    assert {c.candidate_id: c.hull_energy_per_atom for c in selected.choices} == pytest.approx(
        dict.fromkeys([c.candidate_id for c in selected.choices], 0.0)
    )


def test_shards_that_were_measured_against_another_hull_are_measured_again(tmp_path: Path) -> None:
    """As when a calculation of an earlier round was lost, and done again, after they were screened."""
    fresh, other = layout_in(tmp_path / "fresh"), layout_in(tmp_path / "other")
    expected = select(fresh.root, second_round(fresh))
    state = second_round(other)
    elements = Hull([e for e in known_set().entries if len(e.composition.counts) == 1])
    for number, candidates in enumerate(SHARDS[:1]):
        measured(other.shard(2, number), shard_table(candidates), elements, elements.digest)
    assert repr(select(other.root, state)) == repr(expected)


def test_the_order_in_which_shards_arrive_does_not_matter(tmp_path: Path) -> None:
    one = select(tmp_path / "one", second_round(layout_in(tmp_path / "one")))
    other = select(tmp_path / "other", second_round(layout_in(tmp_path / "other"), order=(2, 0, 1)))
    assert repr(one) == repr(other)


def test_a_candidate_that_two_shards_made_is_in_the_pool_once(tmp_path: Path) -> None:
    again = (SHARDS[0], (SHARDS[2][1], SHARDS[0][1]), SHARDS[2])
    once = select(layout_in(tmp_path / "once").root, second_round(Layout(tmp_path / "once")))
    twice = select(layout_in(tmp_path / "twice").root, second_round(Layout(tmp_path / "twice"), shards=again))
    assert repr(twice.choices) == repr(once.choices)
    assert pq.read_table(Layout(tmp_path / "twice").kept(2))["id"].to_pylist() == ["a", "c"]
    assert twice.counts["generated"] == once.counts["generated"] == 5
    assert twice.counts["duplicate"] == once.counts["duplicate"] + 2


def test_an_empty_pool_chooses_nothing(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    path = layout.shard(2, 0)
    path.parent.mkdir(parents=True)
    write_table(path, shard_table(()))
    opened = RoundOpened(round=2, n_parents=1, n_shards=1, n_training=5, hull_digest="h")
    screened = ShardScreened(round=2, shard=0, path=layout.relative(path), counts={"proposed": 0, "kept": 0})
    selected = select(tmp_path, journaled(layout, [no_alignment(), opened, screened]))
    assert selected.choices == ()
    assert selected.counts["generated"] == selected.counts["chosen"] == 0
    assert len(read_table(layout.chosen(2))) == 0


def test_the_outcome_is_told(tmp_path: Path) -> None:
    stream = io.StringIO()
    state = second_round(layout_in(tmp_path))
    select(tmp_path, state, Progress(stream=stream))
    assert "5 candidates, 3 within 50 meV/atom, 2 compositions" in stream.getvalue()


def test_calculations_that_failed_do_not_lower_the_hull(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    state = second_round(layout)
    found: Calculated = state.round(1).calculations["found"]
    failed = found.model_copy(update={"status": "unconverged"})
    rounds = {**state.rounds, 1: type(state.round(1))(calculations={"found": failed})}
    selected = select(tmp_path, CampaignState(alignment=state.alignment, rounds=rounds))
    for chosen in selected.choices:
        assert chosen.hull_energy_per_atom == pytest.approx(chosen.initial_hull_energy_per_atom)


def test_workers_are_given_the_hull_of_the_round(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    state = second_round(layout)
    layout.formulas(2).write_text("")
    context = context_of(tmp_path)
    assert len(list(screen(context, state, 2, [0, 1, 2]))) == 3, "their files are there"
    written = read_hull(context.layout.hull(2))
    formulas = [Composition.from_formula(formula) for formula in CURRENT_HULL]
    assert hull_formation_energies(written, formulas) == pytest.approx(list(CURRENT_HULL.values()))
