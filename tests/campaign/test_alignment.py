"""The fit of oracle energies to the level of a known set, on energies made up from known shifts."""

import numpy as np
import pytest

from opengnome.campaign.alignment import elemental_id, fit_per_element, no_alignment, reference_crystals
from opengnome.campaign.conversion import aligned_energy_per_atom, entry_of
from opengnome.campaign.events import Aligned, Calculated
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.datasets import KnownSet
from opengnome.errors import MissingReferenceError, SettingsError

REFERENCES = {"Na": -1.3, "K": -1.1, "O": -4.9, "Cl": -1.8, "S": -4.1}
SHIFTS = {"Na": 0.02, "K": -0.03, "O": -0.25, "Cl": 0.11, "S": 0.07}


def calculated(identifier: str, formula: str, energy: float | None, status: str = "converged") -> Calculated:
    return Calculated(
        round=0,
        crystal_id=identifier,
        reduced_formula=formula,
        status=status,
        reason="",
        energy_per_atom=energy,
        n_steps=1,
        seconds=0.1,
        path="x",
    )


def mixture(composition: Composition, values: dict[str, float]) -> float:
    return sum(f * values[s] for s, z in ATOMIC_NUMBERS.items() if (f := composition.fractions.get(z)) is not None)


def made_up(noise: float, n: int = 120) -> tuple[KnownSet, dict[str, Calculated]]:
    """Known compounds, and an oracle whose formation energies differ by SHIFTS (and noise, and two outliers)."""
    rng = np.random.default_rng(4)
    crystals, energies, answers = [], [], {}
    for i in range(n):
        chosen = rng.choice(list(SHIFTS), size=rng.integers(2, 4), replace=False)
        numbers = np.repeat([ATOMIC_NUMBERS[s] for s in chosen], rng.integers(1, 4, len(chosen)))
        crystal = Crystal(5 * np.eye(3), rng.random((len(numbers), 3)), numbers)
        formation = rng.uniform(-3, -0.5)
        crystals.append(crystal)
        energies.append(formation + rng.normal(0, noise) + (0.8 if i in (3, 50) else 0.0))
        oracle = formation + mixture(crystal.composition, REFERENCES) - mixture(crystal.composition, SHIFTS)
        answers[f"k{i}"] = calculated(f"k{i}", crystal.reduced_formula, oracle)
    table = CrystalTable.from_crystals(crystals, [f"k{i}" for i in range(n)])
    known = KnownSet(table, np.array(energies), "formation", "table:test", "test")
    answers |= {elemental_id(s): calculated(elemental_id(s), s, e) for s, e in REFERENCES.items()}
    return known, answers


def test_shifts_are_found_in_spite_of_noise_and_outliers() -> None:
    known, answers = made_up(noise=0.005)
    aligned = fit_per_element(known, answers)
    assert aligned.references == pytest.approx(REFERENCES)
    assert aligned.shifts == pytest.approx(SHIFTS, abs=0.01)
    assert aligned.metrics["mae_before"] > 0.05
    assert aligned.metrics["median_error_after"] < 0.01
    assert aligned.metrics["n_crystals"] == 120


def test_an_aligned_energy_is_the_known_sets() -> None:
    known, answers = made_up(noise=0.0)
    aligned = fit_per_element(known, answers)
    for i in (0, 10, 30):
        composition = known.table[i].composition
        energy = answers[f"k{i}"].energy_per_atom
        assert energy is not None
        assert aligned_energy_per_atom(energy, composition, aligned) == pytest.approx(
            known.energies_per_atom[i], abs=0.005
        )


def test_failed_crystals_are_counted_and_left_out() -> None:
    known, answers = made_up(noise=0.0)
    answers["k7"] = calculated("k7", "NaCl", None, status="exploded")
    aligned = fit_per_element(known, answers)
    assert aligned.metrics["n_failed"] == 1
    assert aligned.metrics["n_crystals"] == 119


def test_a_lost_element_is_named() -> None:
    known, answers = made_up(noise=0.0)
    answers[elemental_id("K")] = calculated(elemental_id("K"), "K", None, status="failed")
    with pytest.raises(MissingReferenceError, match="elemental crystals of K"):
        fit_per_element(known, answers)


def test_an_entry_keeps_uncorrected_energy_and_correction_apart() -> None:
    aligned = Aligned(scheme="per_element", references=REFERENCES, shifts=SHIFTS, metrics={})
    entry = entry_of(calculated("c", "NaCl", -3.4), aligned, level="table:test")
    assert entry.energy_per_atom == pytest.approx(-3.4 - (-1.3 - 1.8) / 2)
    assert entry.correction_per_atom == pytest.approx((0.02 + 0.11) / 2)
    assert entry.correction_scheme == "per_element"
    assert entry.level == "table:test"


def test_without_alignment_the_oracles_energy_counts() -> None:
    entry = entry_of(calculated("c", "NaCl", -3.4), no_alignment(), level="chgnet")
    assert (entry.corrected_energy_per_atom, entry.correction_scheme) == (-3.4, "none")


def test_an_element_without_reference_is_named() -> None:
    aligned = Aligned(scheme="per_element", references=REFERENCES, shifts=SHIFTS, metrics={})
    with pytest.raises(MissingReferenceError, match="Br"):
        entry_of(calculated("c", "NaBr", -3.4), aligned, level="table:test")


def test_reference_crystals_are_seeded_and_cover_the_elements() -> None:
    known, _ = made_up(noise=0.0)
    one = reference_crystals(known, n_crystals=20, max_atoms=20, seed=1)
    assert one.ids == reference_crystals(known, n_crystals=20, max_atoms=20, seed=1).ids
    assert one.ids != reference_crystals(known, n_crystals=20, max_atoms=20, seed=2).ids
    assert {elemental_id(s) for s in SHIFTS} <= set(one.ids)
    assert len(one) == 20 + len(SHIFTS)
    with pytest.raises(SettingsError, match="n_crystals=500"):
        reference_crystals(known, n_crystals=500, max_atoms=20, seed=1)
