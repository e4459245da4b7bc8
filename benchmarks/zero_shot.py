"""What an ensemble does not know, and whether it knows that: error and uncertainty by number of elements.

    python benchmarks/zero_shot.py --table gnome_pbe.parquet [--ensemble FOLDER] [--rows 6000] [--json FILE]
    python benchmarks/zero_shot.py --table mp_crystals.parquet --ensemble FOLDER --min-elements 5
    python benchmarks/zero_shot.py --table mp_crystals.parquet --hash-test --cross-fit
    python benchmarks/zero_shot.py --table gnome_pbe.parquet --element-shifts

Mean absolute error, rank correlation of absolute error and spread, coverage of the calibrated intervals, the area
between the curve of measured against nominal coverage and the diagonal, and the error by quarters of the spread. The
first line is the paper's question, crystals of another source; the second is for an ensemble whose training was capped
(`accuracy.py mp --max-elements 4`); the third judges in domain, the calibration fitted on the half that is not judged.
Compositions that the training side of the hash split could hold are counted apart: only those of the hash test are
certain to be new to the shipped ensemble. Crystals of which `opengnome predict` warns are counted apart too.

`--element-shifts` tells what two schemes of energy corrections differ in from what the networks do not know: one shift
per element is fitted to the errors on the training side of the hash split, and the hash test is judged after it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import n_elements
from scipy.stats import spearmanr

from opengnome.campaign.alignment import fit_shifts
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table
from opengnome.datasets import held_out_mask
from opengnome.models import Ensemble, shipped_ensemble
from opengnome.models.calibration import Calibration, fit_calibration
from opengnome.models.prediction import Prediction

REPORTED = (0.5, 0.8, 0.95)
LEVELS = np.round(np.arange(0.05, 1.0, 0.05), 2)
N_SPREADS = 4
FEWEST = 20
"""Groups of fewer crystals say nothing."""
MAX_Z = 120


def inside_intervals(calibration: Calibration, errors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Whether each error lies inside the interval of each of LEVELS, shape (n, levels)."""
    factors = np.array([calibration.factor(float(level)) for level in LEVELS])
    return np.abs(errors)[:, None] <= factors * calibration.std(spread)[:, None]


def cross_fitted(errors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """As `inside_intervals`, by a calibration fitted on the other half."""
    inside = np.empty((len(errors), len(LEVELS)), dtype=bool)
    even = np.arange(len(errors)) % 2 == 0
    for judged in (even, ~even):
        calibration = fit_calibration(errors[~judged], spread[~judged])
        inside[judged] = inside_intervals(calibration, errors[judged], spread[judged])
    return inside


def figures(errors: np.ndarray, spread: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    """Figures of some crystals: errors and spreads (n,), eV/atom, and what `inside_intervals` says of them."""
    absolute = np.abs(errors)
    measured = inside.mean(axis=0)
    quarters = np.array_split(np.argsort(spread, kind="stable"), N_SPREADS)
    return {
        "n": len(errors),
        "mae": float(absolute.mean()),
        "median_absolute_error": float(np.median(absolute)),
        "bias": float(errors.mean()),
        "rank_correlation_of_error_and_spread": float(spearmanr(absolute, spread).statistic),
        **{f"coverage_{level:g}": float(measured[np.isclose(LEVELS, level)][0]) for level in REPORTED},
        "miscalibration_area": float(np.abs(measured - LEVELS).mean()),
        "mean_spread_of_quarters": [float(spread[rows].mean()) for rows in quarters],
        "mae_of_quarters": [float(absolute[rows].mean()) for rows in quarters],
    }


def element_shifts(table: CrystalTable, errors: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """What one shift per element makes of the error of each crystal, shape (n,), eV/atom.

    The shifts are fitted to the errors (n,) of the rows in the mask `fitted`; an element in none of them has no shift.
    """
    rows = np.repeat(np.arange(len(table)), table.n_atoms)
    counts = np.zeros((len(table), MAX_Z))
    np.add.at(counts, (rows, table.flat_atomic_numbers), 1.0)
    fractions = counts / table.n_atoms[:, None]
    return fractions @ fit_shifts(fractions[fitted], errors[fitted])


def warned(ensemble: Ensemble, table: CrystalTable, spread: np.ndarray) -> np.ndarray:
    """Whether `opengnome predict` warns of each crystal, shape (n,)."""
    domain = ensemble.domain
    return np.array([bool(domain.warnings(crystal, s)) for crystal, s in zip(table, spread.tolist(), strict=True)])


def judge(
    ensemble: Ensemble, table: CrystalTable, prediction: Prediction, *, cross_fit: bool, shift: bool
) -> dict[str, Any]:
    """Figures of all crystals, of the hash test, by number of elements, and of those with and without a warning."""
    errors = prediction.formation_energy_per_atom - np.array(table.column("formation_energy_per_atom"), dtype=float)
    usable = np.isfinite(errors)
    errors, spread, part = errors[usable], prediction.spread[usable], table.filter(usable)
    n_without_graph = int((~usable).sum())
    if shift:
        held_out = held_out_mask(part.reduced_formulas)
        errors = (errors - element_shifts(part, errors, ~held_out))[held_out]
        spread, part = spread[held_out], part.filter(held_out)
    inside = cross_fitted(errors, spread) if cross_fit else inside_intervals(prediction.calibration, errors, spread)
    elements, warning = n_elements(part), warned(ensemble, part, spread)
    groups = {"all": np.ones(len(part), dtype=bool), "hash test": held_out_mask(part.reduced_formulas)}
    groups |= {f"{n} elements": elements == n for n in np.unique(elements).tolist()}
    groups |= {"without a warning": ~warning, "with a warning": warning}
    result: dict[str, Any] = {
        name: figures(errors[rows], spread[rows], inside[rows]) for name, rows in groups.items() if rows.sum() >= FEWEST
    }
    return result | {"without a graph": n_without_graph}


def chosen(options: argparse.Namespace) -> CrystalTable:
    table = read_table(options.table)
    if options.hash_test:
        table = table.filter(held_out_mask(table.reduced_formulas))
    if options.min_elements:
        table = table.filter(n_elements(table) >= options.min_elements)
    if options.rows:
        table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[: options.rows]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--ensemble", type=Path, help="folder; the shipped ensemble by default")
    parser.add_argument("--hash-test", action="store_true", help="only what the hash split holds out")
    parser.add_argument("--min-elements", type=int, help="only crystals of at least this many elements")
    parser.add_argument("--cross-fit", action="store_true", help="fit the calibration on the half that is not judged")
    parser.add_argument("--element-shifts", action="store_true", help="judge the hash test after one shift per element")
    parser.add_argument("--rows", type=int, help="a random part of the table")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ensemble = Ensemble.load(options.ensemble or shipped_ensemble())
    table = chosen(options)
    prediction = ensemble.predict(table, volume_scales=(1.0,))
    result = judge(ensemble, table, prediction, cross_fit=options.cross_fit, shift=options.element_shifts)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
