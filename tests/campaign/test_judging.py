"""Distances of candidates to the hull of a round, and that hull as a file."""

import math
from pathlib import Path

import numpy as np
import pytest
from made_up import CURRENT_HULL, FORMATION, INITIAL_HULL, known_set, mixture, total

from opengnome.campaign.hull_file import read_hull, write_hull
from opengnome.campaign.judging import hull_formation_energies, judged
from opengnome.crystals import Composition, CrystalTable
from opengnome.hull import Entry, Hull
from report.synthetic_campaign import grid_crystal

FORMULAS = [*CURRENT_HULL, *FORMATION, "NaO3", "K5O2", "NaK", "Na4K2O3Cl", "NaKCl2O"]


@pytest.mark.parametrize("kind", ["total", "formation"])
def test_hull_formation_energies_equal_the_hull_asked_directly(kind: str) -> None:
    hull = Hull(known_set(kind).entries)
    energies = hull_formation_energies(hull, [Composition.from_formula(f) for f in FORMULAS])
    directly = [hull.energy_per_atom_at(Composition.from_formula(f)) for f in FORMULAS]
    references = [mixture(f) if kind == "total" else 0.0 for f in FORMULAS]
    assert energies == pytest.approx(np.subtract(directly, references), abs=1e-12)
    assert energies[: len(INITIAL_HULL)] == pytest.approx(list(INITIAL_HULL.values()))


@pytest.mark.parametrize("kind", ["total", "formation"])
def test_the_file_of_a_hull_answers_as_the_hull_does(tmp_path: Path, kind: str) -> None:
    known = known_set(kind)
    found = Composition.from_formula("NaKCl2")
    energy = total("NaKCl2", -2.2) if kind == "total" else -2.2
    corrected = Entry("found", found, energy + 0.3, level=known.level, correction_per_atom=-0.3, correction_scheme="x")
    hull = Hull(known.entries).with_entries([corrected])
    write_hull(tmp_path / "hull.parquet", hull)
    again = read_hull(tmp_path / "hull.parquet")
    assert len(again) < len(hull), "what lies above the hull is left out"
    assert again.level == hull.level
    compositions = [Composition.from_formula(f) for f in FORMULAS]
    assert hull_formation_energies(again, compositions) == pytest.approx(
        hull_formation_energies(hull, compositions), abs=1e-12
    )
    assert hull_formation_energies(again, compositions)[: len(CURRENT_HULL)] == pytest.approx([*CURRENT_HULL.values()])


def test_candidates_are_measured_each_against_its_composition() -> None:
    formulas, energies = ["Na3OCl", "NaKO", "Na3OCl", "NaKO"], [-1.8, math.nan, -1.6, -1.3]
    table = CrystalTable.from_crystals([grid_crystal(f) for f in formulas])
    table = table.with_column("formation_energy_per_atom", np.array(energies))
    table = table.with_column("std", np.array([0.05, math.nan, 0.05, 0.05]))
    result = judged(table, Hull(known_set().entries))
    hull_energies = [INITIAL_HULL[f] for f in formulas]
    assert result.column("hull_energy_per_atom") == pytest.approx(hull_energies)
    distances = np.subtract(energies, hull_energies)
    assert result.column("predicted_decomposition_energy") == pytest.approx(distances, nan_ok=True)
    probabilities = result.column("probability_stable")
    assert probabilities[0] == pytest.approx(0.5 * (1 + math.erf(-distances[0] / 0.05 / math.sqrt(2))))
    assert probabilities[0] > 0.5 > probabilities[2]
    assert math.isnan(probabilities[1])
    assert probabilities[3] == pytest.approx(0.5), "on the hull"


def test_no_candidates_are_judged_without_complaint() -> None:
    empty = CrystalTable.from_crystals([])
    empty = empty.with_column("formation_energy_per_atom", np.empty(0)).with_column("std", np.empty(0))
    assert len(judged(empty, Hull(known_set().entries))) == 0
