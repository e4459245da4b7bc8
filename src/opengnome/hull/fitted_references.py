"""Elemental reference energies fitted to known formation energies.

A calculation gets compounds more nearly right than elements: the errors of metal, molecule and compound do not cancel.
Fitting the energy of each element to measured formation energies mends what can be mended so (Stevanovic, Lany, Zhang
and Zunger, doi:10.1103/PhysRevB.85.115104; for some elements only in the OQMD, doi:10.1038/npjcompumats.2015.10).
The same fit brings another code, or a potential, to the level of a table of formation energies.

| symbol | here |
|---|---|
| x_ci | atomic fraction of element i in compound c |
| E_c | calculated energy, eV/atom |
| H_c | known formation energy, eV/atom |
| mu_i | fitted reference energy of element i, eV/atom; the unknown |

E_c - H_c = sum_i x_ci mu_i, by least squares.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import HullError
from opengnome.hull.corrections import PerElementShift
from opengnome.hull.references import formation_energy_per_atom

_NULL_TOLERANCE = 1e-9
"""Singular values below this share of the largest are zero: fractions of formulas are exact to 1e-16, and compositions
that differ at all differ by more than this."""


@dataclass(frozen=True, eq=False)
class FittedReferences:
    """The fit, and everything needed to judge it."""

    references: Mapping[int, float]
    """mu_i in eV/atom by atomic number, of the elements that the compounds determine and of the fixed ones."""
    stds: Mapping[int, float]
    """Standard errors of the references, eV/atom; zero for fixed ones, NaN without spare compounds."""
    unfitted: Mapping[int, str]
    """Elements of the compounds without a reference, by atomic number, and why."""
    used: np.ndarray
    """(m,) rows of the input that were fitted."""
    residuals: np.ndarray
    """(m,) fitted minus known formation energy, eV/atom."""
    left_out_residuals: np.ndarray
    """(m,) the same with the references fitted without that compound, eV/atom: the error to expect for a new one.

    NaN for a compound that alone determines a reference."""
    rejected: tuple[tuple[int, str], ...]
    """Rows that were not fitted, and why."""
    rank: int
    """Independent combinations of references that the compounds determine."""

    @property
    def rmse(self) -> float:
        """Root mean square of the residuals, eV/atom."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    @property
    def left_out_rmse(self) -> float:
        """Root mean square of the residuals of compounds left out one by one, eV/atom; NaN when there are none."""
        known = self.left_out_residuals[np.isfinite(self.left_out_residuals)]
        return float(np.sqrt(np.mean(known**2))) if len(known) else math.nan

    def formation_energy_per_atom(self, composition: Composition, energy_per_atom: float) -> float:
        """Formation energy in eV/atom against the fitted references.

        Raises `MissingReferenceError` naming the elements without one.
        """
        return formation_energy_per_atom(composition, energy_per_atom, self.references, level="fitted references")

    def correction_scheme(self, name: str, elemental_energies: Mapping[int, float]) -> PerElementShift:
        """The fit as a correction of compounds: their formation energy on a hull with the calculated elements.

        `elemental_energies` are the calculated energies in eV/atom of the elements in their stable form, the
        references of the hull. Pure elements keep their energies, so polymorphs keep their differences. Raises
        `HullError` naming fitted elements without such an energy.
        """
        missing = [SYMBOLS[z] for z in self.references if z not in elemental_energies]
        if missing:
            raise HullError(
                f"no calculated energy of the element for {', '.join(missing)}; a correction is the difference between "
                "it and the fitted reference: give one for every fitted element"
            )
        return PerElementShift(
            name,
            {z: elemental_energies[z] - mu for z, mu in self.references.items()},
            dict(self.stds),
            complete=True,
            shifts_elements=False,
            part_name="fitted reference",
        )


def fit_references(
    compositions: Sequence[Composition],
    energies_per_atom: ArrayLike,
    formation_energies_per_atom: ArrayLike,
    *,
    stds: ArrayLike | None = None,
    fixed: Mapping[int, float] | None = None,
    elements: Iterable[int] = (),
) -> FittedReferences:
    """Fit reference energies so that calculated energies give known formation energies; all in eV/atom, shape (n,).

    `stds` (n,) are errors of the known values and weight the fit by their inverse squares. `fixed` references (by
    atomic number) are taken as given. `elements` are wanted; those that no compound contains are among the `unfitted`.
    Rows that are not finite, are pure elements, or have a std that is not positive are rejected with the reason.
    Raises `HullError` when the lengths differ or nothing is left to fit.
    """
    energies = np.asarray(energies_per_atom, dtype=float)
    known = np.asarray(formation_energies_per_atom, dtype=float)
    errors = np.ones(len(compositions)) if stds is None else np.asarray(stds, dtype=float)
    shape = (len(compositions),)
    if not energies.shape == known.shape == errors.shape == shape:
        raise HullError(
            f"{len(compositions)} compositions with {energies.shape} energies, {known.shape} formation energies and "
            f"{errors.shape} stds; give one of each for every compound"
        )
    fixed = dict(fixed or {})
    rejected = _rejected(compositions, energies, known, errors)
    used = np.setdiff1d(np.arange(len(compositions)), [row for row, _ in rejected])
    kept = [compositions[row] for row in used]
    free = sorted({z for composition in kept for z in composition.atomic_numbers} - fixed.keys())
    if not free:
        raise HullError(
            f"no reference to fit: {len(kept)} of {len(compositions)} compounds can be used, and they have no element "
            "without a fixed reference"
        )
    targets = energies[used] - known[used] - _fixed_energies(kept, fixed)
    fit = _least_squares(_fractions(kept, free), targets, errors[used], absolute=stds is not None)
    undetermined = _undetermined(fit.null_space, free)
    absent = dict.fromkeys(sorted(set(elements) - set(free) - fixed.keys()), "none of the compounds contains it")
    return FittedReferences(
        references=dict(sorted({**fixed, **_without(free, fit.solution, undetermined)}.items())),
        stds=dict(sorted({**dict.fromkeys(fixed, 0.0), **_without(free, fit.stds, undetermined)}.items())),
        unfitted=dict(sorted({**undetermined, **absent}.items())),
        used=used,
        residuals=fit.residuals,
        left_out_residuals=fit.left_out_residuals,
        rejected=tuple(rejected),
        rank=fit.rank,
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    solution: np.ndarray  # (k,) eV/atom, of minimal norm
    stds: np.ndarray  # (k,) eV/atom
    null_space: np.ndarray  # (k - rank, k) combinations of references that nothing determines
    residuals: np.ndarray  # (m,) eV/atom, fitted minus known formation energy
    left_out_residuals: np.ndarray  # (m,) eV/atom
    rank: int


def _least_squares(fractions: np.ndarray, targets: np.ndarray, errors: np.ndarray, *, absolute: bool) -> _Fit:
    """Weighted least squares by singular values; (m, k) fractions, (m,) targets and errors in eV/atom.

    The errors are those of the targets where `absolute`; otherwise only their ratios count, and their size is
    estimated from the residuals.
    """
    m = len(targets)
    rows, right = fractions / errors[:, None], targets / errors
    # The full basis is needed for the null space and is there already unless compounds are fewer than elements.
    u, s, vt = np.linalg.svd(rows, full_matrices=m < fractions.shape[1])
    rank = int((s > _NULL_TOLERANCE * s[0]).sum())
    u, s, v, null_space = u[:, :rank], s[:rank], vt[:rank].T, vt[rank:]
    solution = v @ ((u.T @ right) / s)
    misfit = rows @ solution - right  # (m,) in units of the errors
    estimated = float(misfit @ misfit) / (m - rank) if m > rank else math.nan
    # The formation energy is E - mu, so a reference that is too high makes it too low.
    residuals = -misfit * errors
    leverage = (u**2).sum(axis=1)
    spare = 1.0 - leverage
    left_out = np.where(spare > _NULL_TOLERANCE, residuals / np.where(spare > _NULL_TOLERANCE, spare, 1.0), math.nan)
    return _Fit(
        solution=solution,
        stds=np.sqrt(((v / s) ** 2).sum(axis=1) * (1.0 if absolute else estimated)),
        null_space=null_space,
        residuals=residuals,
        left_out_residuals=left_out,
        rank=rank,
    )


def _undetermined(null_space: np.ndarray, elements: Sequence[int]) -> dict[int, str]:
    """Elements whose reference can change without changing any fitted compound, with those that change along."""
    moves = (np.abs(null_space) > math.sqrt(_NULL_TOLERANCE)).T  # (k, k - rank)
    reasons = {}
    for row, z in enumerate(elements):
        if not moves[row].any():
            continue
        along = [
            SYMBOLS[other] for other, m in zip(elements, moves, strict=True) if other != z and (m & moves[row]).any()
        ]
        reasons[z] = f"the compounds do not tell it apart from {', '.join(along)}: more compounds of it are needed"
    return reasons


def _without(elements: Sequence[int], values: np.ndarray, left_out: Mapping[int, str]) -> dict[int, float]:
    return {z: value for z, value in zip(elements, values.tolist(), strict=True) if z not in left_out}


def _fractions(compositions: Sequence[Composition], elements: Sequence[int]) -> np.ndarray:
    """Atomic fractions (m, k) of the chosen elements; rows need not sum to one."""
    columns = {z: column for column, z in enumerate(elements)}
    fractions = np.zeros((len(compositions), len(elements)))
    for row, composition in enumerate(compositions):
        for z, fraction in composition.fractions.items():
            if z in columns:
                fractions[row, columns[z]] = fraction
    return fractions


def _fixed_energies(compositions: Sequence[Composition], fixed: Mapping[int, float]) -> np.ndarray:
    """Sum over the fixed elements of fraction times reference, (m,) eV/atom."""
    return np.array([sum(x * fixed[z] for z, x in c.fractions.items() if z in fixed) for c in compositions])


def _rejected(
    compositions: Sequence[Composition], energies: np.ndarray, known: np.ndarray, errors: np.ndarray
) -> list[tuple[int, str]]:
    rejected = []
    for row, composition in enumerate(compositions):
        if not (math.isfinite(energies[row]) and math.isfinite(known[row])):
            reason = f"energy {energies[row]} and formation energy {known[row]} eV/atom must be finite"
        elif not (math.isfinite(errors[row]) and errors[row] > 0):
            reason = f"std {errors[row]} eV/atom must be positive and finite"
        elif composition.n_elements == 1:
            reason = "a pure element has no formation energy to fit; give its energy in `fixed`"
        else:
            continue
        rejected.append((row, f"{composition.reduced_formula}: {reason}"))
    return rejected
