"""Fitted elemental references: recovery, rank, weights, errors, and the correction made of them."""

import math

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.errors import HullError, MissingReferenceError
from opengnome.hull import Entry, Hull
from opengnome.hull.corrections import apply_correction
from opengnome.hull.fitted_references import fit_references

LI, OXYGEN, FE, MG, SULFUR = (ATOMIC_NUMBERS[symbol] for symbol in ("Li", "O", "Fe", "Mg", "S"))
TRUE = {LI: -1.7, OXYGEN: -5.2, FE: -8.9, MG: -1.5, SULFUR: -4.3}
FORMULAS = "Li2O Li2O2 FeO Fe2O3 LiFeO2 Li5FeO4 MgO MgFe2O4 FeS2 Li2S MgS FeSO4".split()


def compounds(formulas: list[str] = FORMULAS) -> tuple[list[Composition], np.ndarray, np.ndarray]:
    """Compositions, energies, and formation energies that the true references give without error; eV/atom."""
    compositions = [Composition.from_formula(formula) for formula in formulas]
    known = np.random.default_rng(len(formulas)).uniform(-3.0, -0.1, len(formulas))
    mixed = np.array([sum(x * TRUE[z] for z, x in c.fractions.items()) for c in compositions])
    return compositions, known + mixed, known


def test_exact_data_give_the_references_back() -> None:
    fit = fit_references(*compounds())
    assert fit.references == pytest.approx(TRUE)
    assert fit.rank == 5
    assert fit.rmse < 1e-12
    assert fit.unfitted == {}
    assert fit.rejected == ()
    composition, energy = Composition.from_formula("LiFeSO4"), -6.0
    expected = energy - sum(x * TRUE[z] for z, x in composition.fractions.items())
    assert fit.formation_energy_per_atom(composition, energy) == pytest.approx(expected)


def test_least_squares_is_numpys_and_left_out_residuals_are_those_of_refits() -> None:
    compositions, energies, known = compounds()
    noise = np.random.default_rng(0).normal(0.0, 0.1, len(known))
    fit = fit_references(compositions, energies, known + noise)
    elements = sorted(TRUE)
    fractions = np.array([[c.fractions.get(z, 0.0) for z in elements] for c in compositions])
    expected, squares, *_ = np.linalg.lstsq(fractions, energies - known - noise, rcond=None)
    assert list(fit.references.values()) == pytest.approx(expected)
    assert fit.residuals == pytest.approx(energies - fractions @ expected - known - noise)
    covariance = np.linalg.inv(fractions.T @ fractions) * squares[0] / (len(known) - 5)
    assert list(fit.stds.values()) == pytest.approx(np.sqrt(np.diag(covariance)))
    for row in range(len(compositions)):
        rest = [c for i, c in enumerate(compositions) if i != row]
        refit = fit_references(rest, np.delete(energies, row), np.delete(known + noise, row))
        error = refit.formation_energy_per_atom(compositions[row], energies[row]) - (known + noise)[row]
        assert fit.left_out_residuals[row] == pytest.approx(error)
    assert fit.left_out_rmse > fit.rmse


def test_stds_weight_the_fit() -> None:
    compositions, energies, known = compounds()
    known = known.copy()
    known[0] += 1.0  # one bad value, known to be bad
    stds = np.full(len(known), 0.01)
    stds[0] = 100.0
    fit = fit_references(compositions, energies, known, stds=stds)
    assert fit.references == pytest.approx(TRUE, abs=1e-6)
    assert fit.residuals[0] == pytest.approx(-1.0, abs=1e-6)
    half = fit_references(compositions, energies, known, stds=stds / 2)
    assert list(half.stds.values()) == pytest.approx([std / 2 for std in fit.stds.values()])


def test_elements_that_cannot_be_told_apart_are_named() -> None:
    fit = fit_references(*compounds(["FeO", "Fe2O3", "Li2S", "Li4S2"]), elements=[MG])
    assert set(fit.references) == {FE, OXYGEN}
    assert fit.references == pytest.approx({FE: TRUE[FE], OXYGEN: TRUE[OXYGEN]})
    assert fit.rank == 3
    assert "from S" in fit.unfitted[LI]
    assert "from Li" in fit.unfitted[SULFUR]
    assert fit.unfitted[MG] == "none of the compounds contains it"
    assert fit.formation_energy_per_atom(Composition.from_formula("FeO"), -7.0)
    with pytest.raises(MissingReferenceError, match="Li, S"):
        fit.formation_energy_per_atom(Composition.from_formula("Li2S"), -4.0)


def test_fixed_references_make_up_for_missing_compounds() -> None:
    fit = fit_references(*compounds(["Li2S", "FeO"]), fixed={SULFUR: TRUE[SULFUR], OXYGEN: TRUE[OXYGEN]})
    assert fit.references == pytest.approx({LI: TRUE[LI], FE: TRUE[FE], SULFUR: TRUE[SULFUR], OXYGEN: TRUE[OXYGEN]})
    assert fit.stds[SULFUR] == 0.0
    assert math.isnan(fit.stds[LI])
    assert np.isnan(fit.left_out_residuals).all()
    assert math.isnan(fit.left_out_rmse)


def test_more_elements_than_compounds() -> None:
    fit = fit_references(*compounds(["LiFeO2"]))
    assert fit.references == {}
    assert set(fit.unfitted) == {LI, FE, OXYGEN}
    assert fit.rank == 1


def test_bad_rows_are_rejected_with_the_reason_and_the_rest_is_fitted() -> None:
    compositions, energies, known = compounds()
    bad = [*compositions, *(Composition.from_formula(f) for f in ("MgO", "FeS", "Fe", "FeO"))]
    fit = fit_references(
        bad,
        [*energies, math.nan, -6.0, -8.0, -7.0],
        [*known, -3.0, math.inf, 0.0, -1.0],
        stds=[*np.full(len(known), 0.1), 0.1, 0.1, 0.1, 0.0],
    )
    assert fit.references == pytest.approx(TRUE)
    assert list(fit.used) == list(range(len(known)))
    assert [row for row, _ in fit.rejected] == [12, 13, 14, 15]
    for (_, reason), words in zip(
        fit.rejected, ("MgO: energy nan", "FeS: energy", "pure element", "std 0.0"), strict=True
    ):
        assert words in reason


def test_nothing_to_fit_and_different_lengths_are_errors() -> None:
    compositions, energies, known = compounds(["FeO"])
    with pytest.raises(HullError, match="no reference to fit: 0 of 1"):
        fit_references(compositions, [math.nan], known)
    with pytest.raises(HullError, match="no reference to fit: 1 of 1"):
        fit_references(compositions, energies, known, fixed=TRUE)
    with pytest.raises(HullError, match=r"1 compositions with .2,. energies"):
        fit_references(compositions, [1.0, 2.0], known)


def test_as_a_correction_a_hull_of_calculated_elements_gives_the_known_formation_energies() -> None:
    compositions, energies, known = compounds()
    calculated = {LI: -1.9, OXYGEN: -4.9, FE: -8.4, MG: -1.6, SULFUR: -4.1}
    scheme = fit_references(compositions, energies, known).correction_scheme("fit-1", calculated)
    elements = [Entry(str(z), Composition.from_counts({z: 1}), e, level="PBE") for z, e in calculated.items()]
    entries = [Entry(str(c), c, float(e), level="PBE") for c, e in zip(compositions, energies, strict=True)]
    result = apply_correction([*elements, *entries], scheme)
    assert not result.refused
    hull = Hull(result.entries)
    found = [
        hull.formation_energy_per_atom(e.composition, e.corrected_energy_per_atom) for e in result.entries[len(TRUE) :]
    ]
    assert found == pytest.approx(known)
    assert [e.correction_per_atom for e in result.entries[: len(TRUE)]] == [0.0] * len(TRUE)
    with pytest.raises(HullError, match="no calculated energy of the element for Li"):
        fit_references(compositions, energies, known).correction_scheme("fit-1", {z: 0.0 for z in TRUE if z != LI})


def test_order_of_compounds_and_size_of_cells_do_not_matter() -> None:
    compositions, energies, known = compounds()
    noisy = known + np.random.default_rng(1).normal(0.0, 0.1, len(known))
    order = np.random.default_rng(2).permutation(len(known))
    doubled = [Composition.from_counts({z: 2 * n for z, n in compositions[i].counts}) for i in order]
    one, other = fit_references(compositions, energies, noisy), fit_references(doubled, energies[order], noisy[order])
    assert other.references == pytest.approx(dict(one.references))
    assert other.left_out_residuals == pytest.approx(one.left_out_residuals[order])
