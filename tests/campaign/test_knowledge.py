"""What a campaign knows at the start of a round: hulls, parents, formulas."""

from pathlib import Path

import pytest
from made_up import FORMATION, calculated, choice, known_set, total, write_answer

from opengnome.campaign import CampaignSettings
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.events import Selected
from opengnome.campaign.knowledge import Knowledge, alignment_of
from opengnome.campaign.state import CampaignState, RoundState
from opengnome.crystals import Composition, Crystal, with_volume
from opengnome.crystals.elements import SYMBOLS
from opengnome.datasets import KnownSet
from opengnome.hull import Hull
from opengnome.oracles import Status
from report.synthetic_campaign import grid_crystal

ROUNDS: tuple[dict[str, tuple[str, float | None]], ...] = (
    {
        "deep": ("NaKCl2", -2.20),  # 0.15 below the known hull
        "near": ("Na2KCl3", -2.08),  # 0.053 above the hull that has `deep`
        "far": ("Na3OCl", -1.30),  # 0.34 above
        "lost": ("NaKO", None),
    },
    {"later": ("NaK2Cl3", -2.30)},
)
"""Formation energies of the candidates of two rounds, eV/atom."""


def relaxed(formula: str) -> Crystal:
    crystal = grid_crystal(formula)
    return with_volume(crystal, 1.1 * crystal.volume)


def round_state(root: Path, number: int) -> RoundState:
    answers = {}
    for identifier, (formula, formation) in ROUNDS[number - 1].items():
        energy = None if formation is None else total(formula, formation)
        status = Status.CONVERGED if formation is not None else Status.EXPLODED
        answers[identifier] = calculated(identifier, formula, energy, round=number, status=status)
        write_answer(root, answers[identifier], initial=grid_crystal(formula), relaxed=relaxed(formula))
    choices = tuple(choice(identifier, formula) for identifier, (formula, _) in ROUNDS[number - 1].items())
    selection = Selected(round=number, counts={}, choices=choices, path="pool")
    return RoundState(selection=selection, calculations=answers)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("knowledge")


@pytest.fixture(scope="module")
def state(root: Path) -> CampaignState:
    rounds = {number: round_state(root, number) for number in (2, 1)}
    return CampaignState(alignment=no_alignment(), rounds=rounds)


def knowledge_with(root: Path, seed: int = 0, **parents: float) -> Knowledge:
    settings = CampaignSettings.model_validate({"seed": seed, "parents": parents})
    return Knowledge(root, known_set(), settings)


def parent_ids(root: Path, state: CampaignState, number: int, **parents: float) -> set[str]:
    table = knowledge_with(root, **parents).parents(state, number)
    assert len(set(table.ids)) == len(table)
    return set(table.ids)


KNOWN_NEAR = {f"known-{formula}" for formula in FORMATION if formula != "NaO3"}


def test_first_parents_are_the_known_crystals_near_the_hull(root: Path, state: CampaignState) -> None:
    assert parent_ids(root, CampaignState(alignment=no_alignment()), 1) == KNOWN_NEAR
    assert parent_ids(root, state, 1) == KNOWN_NEAR
    assert parent_ids(root, state, 1, max_energy_above_hull=0.2) == KNOWN_NEAR | {"known-NaO3"}
    assert parent_ids(root, state, 1, max_energy_above_hull=0.01) == KNOWN_NEAR - {"known-NaO"}


def test_discoveries_near_the_hull_are_parents_of_the_next_round(root: Path, state: CampaignState) -> None:
    assert parent_ids(root, state, 2) == KNOWN_NEAR | {"deep", "near"}
    assert parent_ids(root, state, 2, max_energy_above_hull=0.01) == KNOWN_NEAR - {"known-NaO"} | {"deep"}


def test_a_discovery_that_a_later_one_lifts_off_the_hull_is_no_parent_any_more(
    root: Path, state: CampaignState
) -> None:
    # NaCl + NaK2Cl3 (-2.3) lie at -2.2 for NaKCl2 and at -2.15 for Na2KCl3
    assert parent_ids(root, state, 3, max_energy_above_hull=0.06) == KNOWN_NEAR | {"deep", "later"}
    assert parent_ids(root, state, 3, max_energy_above_hull=0.08) == KNOWN_NEAR | {"deep", "near", "later"}


def test_a_discovered_parent_is_the_relaxed_crystal(root: Path, state: CampaignState) -> None:
    parents = knowledge_with(root).parents(state, 2)
    crystals = dict(zip(parents.ids, parents, strict=True))
    assert crystals["deep"] == relaxed("NaKCl2")
    assert crystals["known-NaCl"] == grid_crystal("NaCl")


def test_large_cells_are_no_parents(root: Path, state: CampaignState) -> None:
    assert parent_ids(root, state, 2, max_atoms=4) == KNOWN_NEAR | {"deep"}
    assert parent_ids(root, state, 2, max_atoms=2) == {i for i in KNOWN_NEAR if not i.endswith("2O")}


def test_a_draw_of_known_parents_is_seeded_by_round_and_keeps_all_discoveries(root: Path, state: CampaignState) -> None:
    def drawn(number: int, seed: int = 0) -> frozenset[str]:
        ids = knowledge_with(root, seed=seed, max_parents=3).parents(state, number).ids
        known = frozenset(i for i in ids if i.startswith("known-"))
        assert len(known) == 3
        assert known <= KNOWN_NEAR
        assert set(ids) - known == ({"deep", "near"} if number == 2 else set())
        return known

    assert drawn(2) == drawn(2)
    assert len({drawn(1, seed) for seed in range(6)}) > 1
    assert any(drawn(1, seed) != drawn(2, seed) for seed in range(6))


def test_the_hull_of_a_round_has_the_entries_of_earlier_rounds_only(root: Path, state: CampaignState) -> None:
    knowledge = knowledge_with(root)
    known = knowledge.known.entries
    assert {e.id for e in knowledge.hull(state, before_round=1).entries} == {e.id for e in known}
    entries = knowledge.entries(state, before_round=2)
    assert [e.id for e in entries] == ["deep", "far", "near"]
    assert [e.corrected_energy_per_atom for e in entries] == pytest.approx(
        [total(*ROUNDS[0][e.id]) for e in entries]  # type: ignore[arg-type]
    )
    assert knowledge.hull(state, before_round=2).digest == Hull([*known, *entries]).digest
    assert [e.id for e in knowledge.entries(state, before_round=3)] == ["deep", "far", "near", "later"]


def test_distances_are_those_of_the_known_crystals_to_the_given_hull(root: Path, state: CampaignState) -> None:
    for kind in ("total", "formation"):
        known = known_set(kind)
        distances = Knowledge(root, known, CampaignSettings()).distances(Hull(known.entries))
        expected = [{"NaO": 0.05, "NaO3": 0.125}.get(formula, 0.0) for formula in FORMATION]
        assert distances == pytest.approx(expected, abs=1e-9)


def test_compositions_that_were_tried_are_known_however_they_ended(root: Path, state: CampaignState) -> None:
    knowledge = knowledge_with(root)
    known = set(knowledge.known.table.reduced_formulas)
    assert set(knowledge.formulas(state, 1)) == known
    first = knowledge.formulas(state, 2)
    assert set(first) - known == {grid_crystal(formula).reduced_formula for formula, _ in ROUNDS[0].values()}
    assert set(knowledge.formulas(state, 3)) - set(first) == {grid_crystal("NaK2Cl3").reduced_formula}
    assert first == sorted(set(first))


def test_the_elements_are_known_where_the_table_does_not_list_them(root: Path) -> None:
    listed = known_set("formation")
    is_compound = [Composition.from_formula(formula).n_elements > 1 for formula in listed.table.reduced_formulas]
    compounds = KnownSet(
        listed.table.filter(is_compound), listed.energies_per_atom[is_compound], "formation", listed.level, "made up"
    )
    formulas = Knowledge(root, compounds, CampaignSettings()).formulas(CampaignState(), 1)
    elements = {Composition.from_formula(SYMBOLS[z]).reduced_formula for z in compounds.elements}
    assert set(formulas) == {*compounds.table.reduced_formulas} | elements
    assert "Cl2" in elements  # as the table of candidates spells it


def test_without_alignment_nothing_can_be_asked(root: Path) -> None:
    with pytest.raises(ValueError, match="not aligned yet"):
        alignment_of(CampaignState())
