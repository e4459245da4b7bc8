"""What the models of a round learn from, row by row."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import FORMATION, REFERENCES, calculated, known_set, layout_in, mixture, total, write_answer

from opengnome.campaign import CampaignSettings
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.events import Aligned, Calculated
from opengnome.campaign.knowledge import Knowledge
from opengnome.campaign.state import CampaignState, RoundState
from opengnome.campaign.strained import strained_crystals, strained_id
from opengnome.campaign.training_set import spread, training_table
from opengnome.crystals import Crystal, CrystalTable, with_volume
from opengnome.crystals.io import write_table
from opengnome.datasets import is_train
from opengnome.oracles import Frames, Status
from report.synthetic_campaign import grid_crystal

EXCESS = np.array([5.0, 1.0, 0.4, 0.2, 0.1, 0.0])
"""Energy of each frame above the relaxed one, eV/atom."""


def frames_of(crystal: Crystal, energy_per_atom: float) -> Frames:
    """A relaxation in which the crystal shrinks to its volume."""
    n = len(EXCESS)
    scales = np.linspace(1.2, 1.0, n)[:, None, None] ** (1 / 3)
    return Frames(
        positions=crystal.positions * scales,
        lattices=crystal.lattice * scales,
        energies=(energy_per_atom + EXCESS) * crystal.n_atoms,
        forces=np.zeros((n, crystal.n_atoms, 3)),
        stresses=np.zeros((n, 3, 3)),
    )


def relaxed_answer(root: Path, identifier: str, formula: str, energy: float, *, round: int = 1) -> Calculated:
    """A converged relaxation with its file; energy in eV/atom."""
    answer = calculated(identifier, formula, energy, round=round)
    crystal = grid_crystal(formula)
    initial = with_volume(crystal, 1.2 * crystal.volume)
    write_answer(root, answer, initial=initial, relaxed=crystal, frames=frames_of(crystal, energy))
    return answer


def rows_of(
    root: Path, state: CampaignState, number: int = 1, *, kind: str = "total", **training_set: float
) -> dict[str, tuple[Crystal, float]]:
    """Crystal and target of every row by id."""
    knowledge = Knowledge(root, known_set(kind), CampaignSettings.model_validate({"training_set": training_set}))
    table = training_table(knowledge, state, number)
    assert len(set(table.ids)) == len(table)
    return dict(zip(table.ids, zip(table, table.column("target"), strict=True), strict=True))


def targets(rows: dict[str, tuple[Crystal, float]]) -> dict[str, float]:
    return {identifier: target for identifier, (_, target) in rows.items()}


UNSTRAINED, COMPRESSED, EXPANDED = (strained_id("known-NaCl", volume) for volume in (1.0, 0.85, 1.15))
KNOWN_TARGETS = {f"known-{formula}": energy for formula, energy in FORMATION.items()}
EMPTY = CampaignState(alignment=no_alignment())


@pytest.mark.parametrize("kind", ["total", "formation"])
def test_known_crystals_with_their_formation_energies(tmp_path: Path, kind: str) -> None:
    rows = rows_of(tmp_path, EMPTY, kind=kind)
    assert targets(rows) == pytest.approx(KNOWN_TARGETS)
    assert all(rows[f"known-{formula}"][0] == grid_crystal(formula) for formula in FORMATION)


def test_large_crystals_are_left_out(tmp_path: Path) -> None:
    assert set(rows_of(tmp_path, EMPTY, max_atoms=2)) == {
        f"known-{formula}" for formula in FORMATION if grid_crystal(formula).n_atoms <= 2
    }


def test_held_out_rows_are_those_of_held_out_compositions(tmp_path: Path) -> None:
    answers = {f"c{i}": relaxed_answer(tmp_path, f"c{i}", f"Na{i}Cl", -3.0) for i in range(2, 12)}
    state = CampaignState(alignment=no_alignment(), rounds={1: RoundState(calculations=answers)})
    table = training_table(Knowledge(tmp_path, known_set(), CampaignSettings()), state, 2)
    held_out = table.column("held_out")
    assert held_out == [not is_train(formula) for formula in table.reduced_formulas]
    assert any(held_out)
    assert not all(held_out)


def test_a_candidate_gives_its_relaxed_crystal_and_frames(tmp_path: Path) -> None:
    answer = relaxed_answer(tmp_path, "c", "NaKCl2", total("NaKCl2", -2.2))
    state = CampaignState(alignment=no_alignment(), rounds={1: RoundState(calculations={"c": answer})})
    assert targets(rows_of(tmp_path, state, 1)) == pytest.approx(KNOWN_TARGETS), "its own round does not know it yet"
    rows = rows_of(tmp_path, state, 2, frames_per_calculation=2, max_formation_energy_per_atom=9.0)
    new = {identifier: row for identifier, row in rows.items() if identifier not in KNOWN_TARGETS}
    assert targets(new) == pytest.approx({"c": -2.2, "c#0": -2.2 + EXCESS[0], "c#2": -2.2 + EXCESS[2]})
    volume = grid_crystal("NaKCl2").volume
    assert new["c"][0] == grid_crystal("NaKCl2")
    assert new["c#0"][0].volume == pytest.approx(1.2 * volume)
    assert volume < new["c#2"][0].volume < 1.2 * volume
    assert new["c#2"][0].frac_coords == pytest.approx(grid_crystal("NaKCl2").frac_coords)
    assert set(rows_of(tmp_path, state, 2, frames_per_calculation=0)) == {*KNOWN_TARGETS, "c"}


def test_rows_above_the_limit_are_left_out(tmp_path: Path) -> None:
    answer = relaxed_answer(tmp_path, "c", "NaKCl2", total("NaKCl2", -2.2))
    state = CampaignState(alignment=no_alignment(), rounds={1: RoundState(calculations={"c": answer})})
    limited = rows_of(tmp_path, state, 2, frames_per_calculation=2, max_formation_energy_per_atom=2.0)
    assert set(limited) == {*KNOWN_TARGETS, "c", "c#2"}
    assert set(rows_of(tmp_path, EMPTY, max_formation_energy_per_atom=-1.3)) == {
        i for i, target in KNOWN_TARGETS.items() if target <= -1.3
    }


def test_a_reference_gives_frames_only_because_the_crystal_is_known(tmp_path: Path) -> None:
    answer = relaxed_answer(tmp_path, "known-NaCl", "NaCl", total("NaCl", -2.0), round=0)
    state = CampaignState(alignment=no_alignment(), references={"known-NaCl": answer})
    rows = targets(rows_of(tmp_path, state, frames_per_calculation=2, max_formation_energy_per_atom=9.0))
    assert rows == pytest.approx(KNOWN_TARGETS | {"known-NaCl#0": -2.0 + EXCESS[0], "known-NaCl#2": -2.0 + EXCESS[2]})


def test_an_element_among_the_references_gives_no_row(tmp_path: Path) -> None:
    answer = relaxed_answer(tmp_path, "element-Na", "Na", total("Na", 0.0), round=0)
    state = CampaignState(alignment=no_alignment(), references={"element-Na": answer})
    assert set(rows_of(tmp_path, state, frames_per_calculation=2, max_formation_energy_per_atom=9.0)) == set(
        KNOWN_TARGETS
    )


def test_a_crystal_too_dense_for_a_graph_is_left_out(tmp_path: Path) -> None:
    answer = relaxed_answer(tmp_path, "c", "NaKCl2", total("NaKCl2", -2.2))
    crystal = grid_crystal("NaKCl2")
    dense = with_volume(crystal, crystal.volume / 1000)
    write_answer(tmp_path, answer, initial=crystal, relaxed=dense)
    state = CampaignState(alignment=no_alignment(), rounds={1: RoundState(calculations={"c": answer})})
    assert set(rows_of(tmp_path, state, 2)) == set(KNOWN_TARGETS)


def test_failed_calculations_teach_nothing(tmp_path: Path) -> None:
    failed = calculated("c", "NaKCl2", None, status=Status.EXPLODED)
    unconverged = calculated("d", "NaKCl2", -3.0, status=Status.UNCONVERGED)
    state = CampaignState(
        alignment=no_alignment(),
        references={"known-NaCl": calculated("known-NaCl", "NaCl", None, round=0, status=Status.FAILED)},
        rounds={1: RoundState(calculations={"c": failed, "d": unconverged})},
    )  # their files need not even be there
    assert set(rows_of(tmp_path, state, 2)) == set(KNOWN_TARGETS)


def test_oracle_energies_are_brought_to_the_level_of_the_known_set(tmp_path: Path) -> None:
    shifts = {"Na": 0.02, "K": -0.03, "O": -0.25, "Cl": 0.11}
    aligned = Aligned(scheme="per_element", references=REFERENCES, shifts=shifts, metrics={})
    answer = relaxed_answer(tmp_path, "c", "NaKCl2", total("NaKCl2", -2.2))
    state = CampaignState(alignment=aligned, rounds={1: RoundState(calculations={"c": answer})})
    rows = targets(rows_of(tmp_path, state, 2, kind="formation", frames_per_calculation=4))
    shift = mixture("NaKCl2", shifts)
    assert shift != 0
    assert rows["c"] == pytest.approx(-2.2 + shift)
    assert rows["c#2"] == pytest.approx(-2.2 + EXCESS[2] + shift)
    assert {i: rows[i] for i in KNOWN_TARGETS} == pytest.approx(KNOWN_TARGETS), "known energies are not shifted"


def test_strained_rows_use_the_known_energy_at_the_known_volume(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    crystals = strained_crystals(known_set(), n_crystals=99, volumes=(0.85, 1.15), max_atoms=20, seed=0)
    assert isinstance(crystals, CrystalTable)
    write_table(layout.references, crystals)
    wrong_by = 3.0  # the oracle's own energy of NaCl, which must not enter
    energies = {UNSTRAINED: 0.0, COMPRESSED: 0.3, EXPANDED: 0.2}
    references = {
        i: calculated(i, "NaCl", wrong_by + energy, round=0, status=Status.UNCONVERGED)
        for i, energy in energies.items()
    }
    references[UNSTRAINED] = references[UNSTRAINED].model_copy(update={"status": Status.CONVERGED.value})
    rows = rows_of(tmp_path, CampaignState(alignment=no_alignment(), references=references))
    assert targets(rows) == pytest.approx(KNOWN_TARGETS | {COMPRESSED: -1.7, EXPANDED: -1.8})
    assert rows[COMPRESSED][0].volume == pytest.approx(0.85 * grid_crystal("NaCl").volume)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 8))
def test_spread_frames_begin_at_the_first_and_never_take_the_last(n_frames: int, n_wanted: int) -> None:
    indices = list(spread(n_frames, n_wanted))
    assert indices == sorted(set(indices))
    assert len(indices) <= n_wanted
    assert all(0 <= i <= n_frames - 2 for i in indices)
    assert (indices[:1] == [0]) == (n_wanted > 0 and n_frames > 1)
    if n_frames - 1 >= 2 * n_wanted:
        assert len(indices) == n_wanted
