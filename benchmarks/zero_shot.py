"""An ensemble on crystals of another source, none of which it was trained on: error, and whether it knows it.

    python benchmarks/zero_shot.py --table gnome_pbe.parquet [--ensemble FOLDER] [--rows 6000] [--json FILE]

Mean absolute error, rank correlation of absolute error and spread, and coverage of the calibrated intervals, for all
and by number of elements. Compositions that the training side of the hash split could hold are counted apart: only
those of the hash test are certain to be new to the shipped ensemble.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from opengnome.crystals.io import read_table
from opengnome.datasets import held_out_mask
from opengnome.models import Ensemble, shipped_ensemble
from opengnome.models.prediction import Prediction

LEVELS = (0.5, 0.8, 0.95)


def figures(prediction: Prediction, truth: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Figures of the crystals at `rows`."""
    errors = np.abs(prediction.formation_energy_per_atom - truth)[rows]
    spread, std = prediction.spread[rows], prediction.std[rows]
    row = {
        "n": len(errors),
        "mae": float(errors.mean()),
        "median_absolute_error": float(np.median(errors)),
        "bias": float((prediction.formation_energy_per_atom - truth)[rows].mean()),
        "rank_correlation_of_error_and_spread": float(spearmanr(errors, spread).statistic),
    }
    for level in LEVELS:
        row[f"coverage_{level:g}"] = float(np.mean(errors <= prediction.calibration.factor(level) * std))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--ensemble", type=Path, help="folder; the shipped ensemble by default")
    parser.add_argument("--rows", type=int, help="a random part of the table")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ensemble = Ensemble.load(options.ensemble or shipped_ensemble())
    table = read_table(options.table)
    if options.rows:
        table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[: options.rows]))
    truth = np.array(table.column("formation_energy_per_atom"), dtype=float)
    prediction = ensemble.predict(table, volume_scales=(1.0,))
    usable = np.isfinite(prediction.formation_energy_per_atom)
    n_elements = np.array([len(set(crystal.atomic_numbers.tolist())) for crystal in table])
    held_out = held_out_mask(table.reduced_formulas)
    result: dict[str, object] = {
        "all": figures(prediction, truth, usable),
        "hash test": figures(prediction, truth, usable & held_out),
        "without a graph": int((~usable).sum()),
    }
    for n in np.unique(n_elements).tolist():
        result[f"{n} elements"] = figures(prediction, truth, usable & (n_elements == n))
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
