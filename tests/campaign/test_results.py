"""The discoveries of a made-up campaign, worked out again with pymatgen."""

import re
from pathlib import Path

import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition as PymatgenComposition
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from opengnome.campaign import CampaignResults, Discovery
from opengnome.campaign.journal import Journal
from opengnome.crystals.io import to_pymatgen
from opengnome.errors import CampaignError
from opengnome.hull import Hull
from opengnome.report.evidence import comparisons
from report.synthetic_campaign import (
    KNOWN,
    ROUNDS,
    Found,
    begin,
    build_campaign,
    grid_crystal,
    identifier,
    make_settings,
    write_known_table,
)

N_CLOSED = 2
CALCULATED = [*ROUNDS[0], *ROUNDS[1], ROUNDS[2][0]]
"""The third round is in the middle of its relaxations."""
CONVERGED = {identifier(f.formula): f for f in CALCULATED if f.energy is not None}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> CampaignResults:
    return CampaignResults(build_campaign(tmp_path_factory.mktemp("results") / "campaign", n_closed=N_CLOSED))


@pytest.fixture(scope="module")
def entries() -> dict[str, PDEntry]:
    """Known set and converged candidates as pymatgen has them, by id."""
    energies = {f"known-{formula}": (formula, energy) for formula, energy in KNOWN.items()}
    energies |= {i: (f.formula, f.energy) for i, f in CONVERGED.items() if f.energy is not None}
    found = {}
    for name, (formula, energy) in energies.items():
        composition = PymatgenComposition(formula)
        found[name] = PDEntry(composition, energy * composition.num_atoms, name=name)
    return found


def products_of(discovery: Discovery) -> dict[str, float]:
    parts = re.findall(r"(\d\.\d\d) (\S+)", discovery.decomposition_products)
    return {formula: float(fraction) for fraction, formula in parts}


def test_the_discoveries_are_the_candidates_that_pymatgen_finds_on_the_hull(
    results: CampaignResults, entries: dict[str, PDEntry]
) -> None:
    diagram = PhaseDiagram(list(entries.values()))
    stable = {entry.name for entry in diagram.stable_entries} & set(CONVERGED)
    assert {d.id for d in results.discoveries} == stable
    assert 0 < len(stable) < len(CONVERGED), "some converged candidates lie above the hull"


def test_energies_and_products_equal_those_of_pymatgen(results: CampaignResults, entries: dict[str, PDEntry]) -> None:
    initial = PhaseDiagram([entry for name, entry in entries.items() if name not in CONVERGED])
    for discovery in results.discoveries:
        entry = entries[discovery.id]
        without = PhaseDiagram([other for other in entries.values() if other is not entry])
        depth = entry.energy_per_atom - without.get_hull_energy_per_atom(entry.composition)
        assert discovery.decomposition_energy == pytest.approx(depth, abs=1e-9)
        assert discovery.decomposition_energy < 0
        assert discovery.formation_energy_per_atom == pytest.approx(without.get_form_energy_per_atom(entry))
        assert discovery.distance_to_initial_hull == pytest.approx(
            entry.energy_per_atom - initial.get_hull_energy_per_atom(entry.composition), abs=1e-9
        )
        products = {e.composition.reduced_formula: n for e, n in without.get_decomposition(entry.composition).items()}
        assert products_of(discovery) == pytest.approx(products, abs=0.0051)


def test_the_deepest_come_first(results: CampaignResults) -> None:
    depths = [d.decomposition_energy for d in results.discoveries]
    assert depths == sorted(depths)
    assert depths[0] < depths[-1]


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib to pymatgen, not to us
def test_space_groups_equal_those_of_spglib(results: CampaignResults) -> None:
    for discovery in results.discoveries:
        spglib = SpacegroupAnalyzer(to_pymatgen(discovery.crystal), symprec=0.1)
        assert discovery.space_group_number == spglib.get_space_group_number()
        assert discovery.space_group == spglib.get_space_group_symbol()
    assert len({d.space_group_number for d in results.discoveries}) > 1


def test_what_is_told_of_a_discovery_is_what_was_chosen_and_calculated(results: CampaignResults) -> None:
    discoveries = {d.id: d for d in results.discoveries}
    for number, found in enumerate(ROUNDS, start=1):
        for each in found:
            discovery = discoveries.get(identifier(each.formula))
            if discovery is not None:
                check_origin(discovery, each, number, results)


def check_origin(discovery: Discovery, found: Found, number: int, results: CampaignResults) -> None:
    crystal = grid_crystal(found.formula)
    assert discovery.crystal == crystal
    assert discovery.reduced_formula in (found.formula, crystal.reduced_formula)
    assert discovery.round == number
    assert discovery.method == "ionic_substitution"
    assert discovery.parent_ids == ("known-NaCl",)
    choice = results.choices[discovery.id]
    assert discovery.replaced == choice.replaced
    assert discovery.predicted_decomposition_energy == choice.predicted_decomposition_energy
    assert discovery.predicted_std == 0.06


def test_the_error_of_the_alignment_is_told_where_there_was_one(results: CampaignResults, tmp_path: Path) -> None:
    alignment = results.state.alignment
    assert alignment is not None
    error = alignment.metrics.get("rms_after", alignment.metrics["std_after"])
    assert error > 0
    assert {d.decomposition_energy_std for d in results.discoveries} == {error}
    unaligned = CampaignResults(build_campaign(tmp_path / "campaign", n_closed=N_CLOSED, aligned=False))
    assert {d.decomposition_energy_std for d in unaligned.discoveries} == {0.0}
    energies = {d.id: d.decomposition_energy for d in results.discoveries}
    assert {d.id: d.decomposition_energy for d in unaligned.discoveries} == pytest.approx(energies)


def test_entries_are_the_converged_calculations_at_the_level_of_the_known_set(results: CampaignResults) -> None:
    assert len(results.calculations) == len(CALCULATED)
    assert [(c.round, c.crystal_id) for c in results.calculations] == sorted(
        (c.round, c.crystal_id) for c in results.calculations
    )
    assert {i: e.corrected_energy_per_atom for i, e in results.entries.items()} == pytest.approx(
        {i: f.energy for i, f in CONVERGED.items()}
    )
    assert results.hull.digest == Hull([*results.knowledge.known.entries, *results.entries.values()]).digest


def test_choices_are_those_of_all_rounds(results: CampaignResults) -> None:
    assert set(results.choices) == {identifier(f.formula) for found in ROUNDS for f in found}


def test_a_campaign_that_has_only_begun_has_found_nothing(tmp_path: Path) -> None:
    write_known_table(tmp_path / "known.parquet")
    begin(tmp_path / "campaign", make_settings(tmp_path / "known.parquet"))
    results = CampaignResults(tmp_path / "campaign")
    assert results.discoveries == ()
    assert results.entries == {}
    assert len(results.hull) == len(results.knowledge.known.entries)


def test_a_directory_without_a_campaign(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="holds no campaign"):
        CampaignResults(tmp_path)


def test_a_converged_calculation_without_its_crystal_is_damaged(tmp_path: Path) -> None:
    root = build_campaign(tmp_path / "campaign", n_closed=N_CLOSED)
    results = CampaignResults(root)
    files = {c.crystal_id: root / c.path for c in results.calculations}
    failed = next(i for i in files if i not in CONVERGED)
    files[identifier("Na2ZrO3")].write_bytes(files[failed].read_bytes())
    with pytest.raises(CampaignError, match="the file is damaged"):
        _ = results.discoveries


def with_twin(root: Path, *, chosen: bool) -> CampaignResults:
    """A campaign in which the first discovery was calculated a second time under another id."""
    results = CampaignResults(root)
    first = next(c for c in results.calculations if c.crystal_id == results.discoveries[0].id)
    with Journal(root / "journal.sqlite") as journal:
        journal.append(first.model_copy(update={"crystal_id": "a-twin"}))
    found = CampaignResults(root)
    if chosen:
        twin = found.choices[first.crystal_id].model_copy(update={"candidate_id": "a-twin"})
        found.__dict__["choices"] = {**found.choices, "a-twin": twin}
    return found


def test_a_crystal_that_was_found_twice_is_one_discovery(results: CampaignResults, tmp_path: Path) -> None:
    found = with_twin(build_campaign(tmp_path / "campaign", n_closed=N_CLOSED), chosen=True)
    assert "a-twin" in found.entries
    (twin,) = (d for d in found.discoveries if d.reduced_formula == results.discoveries[0].reduced_formula)
    assert twin.id == "a-twin", "the first by id of equal energies"
    assert {d.id for d in found.discoveries} - {twin.id} == {d.id for d in results.discoveries[1:]}


def test_a_calculation_that_nobody_chose_is_an_entry_and_no_discovery(results: CampaignResults, tmp_path: Path) -> None:
    """A round that was repaired and chosen again leaves what its first choice had calculated."""
    found = with_twin(build_campaign(tmp_path / "campaign", n_closed=N_CLOSED), chosen=False)
    assert "a-twin" in found.entries
    assert {d.id for d in found.discoveries} == {d.id for d in results.discoveries}
    assert comparisons(found) == comparisons(results)
