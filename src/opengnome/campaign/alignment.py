"""How the oracle's energies compare with the known set's, measured on known crystals and fitted openly.

The oracle relaxes one crystal per element and a seeded sample of known compounds. Its formation energy (its
own elemental energies subtracted) differs from the table's by an offset that is mostly a sum of element
contributions (other functional corrections, other references). One shift per element is fitted to that
difference by ridge-regularised Huber regression, so that single crystals that relax elsewhere do not move it.
"""

from collections.abc import Mapping

import numpy as np

from opengnome.campaign.conversion import UNALIGNED, has_energy, weighted_sum
from opengnome.campaign.events import Aligned, Calculated
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.strained import is_strained
from opengnome.crystals import Composition, CrystalTable, concatenate
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.table import STRUCTURE_COLUMNS
from opengnome.datasets import KnownSet, load_elemental_crystals
from opengnome.errors import MissingReferenceError, SettingsError, WorkFailedError

_HUBER_DELTA = 0.05
"""Differences above this count linearly instead of squared, eV/atom."""
_RIDGE = 0.02
"""Strength of the pull of a shift towards zero, in units of crystals: it matters only for rare elements."""
_N_FOLDS = 5


def reference_crystals(known: KnownSet, *, n_crystals: int, max_atoms: int, seed: int) -> CrystalTable:
    """What the oracle has to compute: one crystal per element and a seeded sample of `n_crystals` known compounds.

    The elemental crystals are those that come with the package (ids `element-<symbol>`), because tables of
    compounds often lack some; their energies need not be known, the oracle relaxes them itself.
    Raises `MissingReferenceError` when the package has none for an element, `SettingsError` when the known set
    has too few compounds of at most `max_atoms` atoms.
    """
    elemental = load_elemental_crystals()
    position = {identifier: i for i, identifier in enumerate(elemental.ids)}
    wanted = [elemental_id(SYMBOLS[z]) for z in known.elements]
    missing = [identifier for identifier in wanted if identifier not in position]
    if missing:
        raise MissingReferenceError(
            f"no reference crystal {', '.join(missing)}; leave these elements out of known.elements"
        )
    compounds = [
        i
        for i, formula in enumerate(known.table.reduced_formulas)
        if known.table.n_atoms[i] <= max_atoms and Composition.from_formula(formula).n_elements > 1
    ]
    if len(compounds) < n_crystals:
        raise SettingsError(
            f"alignment.n_crystals={n_crystals}, but only {len(compounds)} known compounds are small enough"
        )
    compounds.sort(key=lambda i: seed_for(seed, "alignment", known.table.ids[i]))
    drawn = known.table.take(sorted(compounds[:n_crystals]))
    tables = [elemental.take([position[i] for i in wanted]), drawn]
    return concatenate([CrystalTable(t.arrow.select(list(STRUCTURE_COLUMNS))) for t in tables])


def elemental_id(symbol: str) -> str:
    """Id of the reference crystal of an element."""
    return f"element-{symbol}"


def no_alignment() -> Aligned:
    """The oracle made the known set's energies: nothing to shift."""
    return Aligned(scheme=UNALIGNED, references={}, shifts={}, metrics={})


def fit_per_element(known: KnownSet, calculations: Mapping[str, Calculated]) -> Aligned:
    """Fit one shift per element to the oracle's answers on known crystals.

    Metrics (eV/atom): `offset_before` and `mae_before` of the oracle's formation energy minus the table's,
    `mae_after` and `rms_after` by five-fold cross-validation, `std_after` the spread without the tails (from the
    median absolute deviation), `n_crystals`, `n_failed`.
    """
    answers = {i: c for i, c in calculations.items() if not is_strained(i)}
    energies = {i: c.energy_per_atom for i, c in answers.items() if has_energy(c) and c.energy_per_atom is not None}
    symbols = [SYMBOLS[z] for z in known.elements]
    lost = [symbol for symbol in symbols if elemental_id(symbol) not in energies]
    if lost:
        raise MissingReferenceError(
            f"the oracle failed on the elemental crystals of {', '.join(lost)}; exclude these elements"
        )
    references = {symbol: energies[elemental_id(symbol)] for symbol in symbols}
    fractions, difference = differences(known, energies, references)
    if len(difference) < 2 * _N_FOLDS:
        raise WorkFailedError(
            f"the oracle converged on {len(difference)} of the known compounds, too few to align it with the known "
            f"set (at least {2 * _N_FOLDS}); see the reasons in the calculations"
        )
    return Aligned(
        scheme="per_element",
        references=references,
        shifts=dict(zip(references, fit_shifts(fractions, difference).tolist(), strict=True)),
        metrics={
            **_metrics(fractions, difference),
            "n_failed": float(len(answers) - len(energies)),
        },
    )


def differences(
    known: KnownSet, energies: Mapping[str, float], references: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (n_crystals, n_elements) of known compounds, and the table's minus the oracle's formation energy
    (n_crystals,), eV/atom.

    `energies` are the oracle's by id, `references` its elemental ones by symbol, which orders the columns; eV/atom.
    """
    symbols = list(references)
    fractions, difference = [], []
    for identifier, formula, energy in zip(
        known.table.ids, known.table.reduced_formulas, known.energies_per_atom.tolist(), strict=True
    ):
        if identifier not in energies:
            continue
        composition = Composition.from_formula(formula)
        if composition.n_elements == 1:
            continue
        by_symbol = {SYMBOLS[z]: fraction for z, fraction in composition.fractions.items()}
        fractions.append([by_symbol.get(symbol, 0.0) for symbol in symbols])
        difference.append(energy - (energies[identifier] - weighted_sum(composition, references)))
    return np.array(fractions), np.array(difference)


def fit_shifts(fractions: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """One shift per element to differences of energies, shape (n_elements,), eV/atom.

    `fractions` (n_crystals, n_elements) are the compositions, `difference` (n_crystals,) is in eV/atom. Huber
    regression with a ridge, by iteratively reweighted least squares.
    """
    weights = np.ones(len(difference))
    shifts = np.zeros(fractions.shape[1])
    for _ in range(50):
        weighted = fractions * weights[:, None]
        normal = fractions.T @ weighted + _RIDGE * np.eye(fractions.shape[1])
        updated = np.linalg.solve(normal, weighted.T @ difference)
        residual = np.abs(difference - fractions @ updated)
        weights = np.minimum(1.0, _HUBER_DELTA / np.maximum(residual, 1e-12))
        if np.allclose(updated, shifts, atol=1e-9):
            break
        shifts = updated
    return updated


def left_by_shifts(fractions: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """What is left of each difference (n_crystals,) after shifts that are fitted to the other folds, eV/atom."""
    fold = np.arange(len(difference)) % _N_FOLDS
    residual = np.empty_like(difference)
    for k in range(_N_FOLDS):
        shifts = fit_shifts(fractions[fold != k], difference[fold != k])
        residual[fold == k] = difference[fold == k] - fractions[fold == k] @ shifts
    return residual


def _metrics(fractions: np.ndarray, difference: np.ndarray) -> dict[str, float]:
    residual = left_by_shifts(fractions, difference)
    return {
        "n_crystals": float(len(difference)),
        "offset_before": float(-difference.mean()),
        "mae_before": float(np.abs(difference).mean()),
        "mae_after": float(np.abs(residual).mean()),
        "median_error_after": float(np.median(np.abs(residual))),
        "rms_after": float(np.sqrt(np.mean(residual**2))),
        "std_after": float(1.4826 * np.median(np.abs(residual - np.median(residual)))),
    }
