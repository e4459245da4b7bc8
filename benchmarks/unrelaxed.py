"""What the volume scan is worth on unrelaxed substitutions of known crystals.

    python benchmarks/unrelaxed.py --table mp_crystals.parquet --ensemble FOLDER [--targets 3000] [--json FILE]

Each target is a crystal of the table whose composition the ensemble has not seen (hash test). Its stand-in is made as
a discovery campaign would make it: a crystal with a composition of the training side and the same prototype (space
group, and Wyckoff letters of each element), sharing as many elements as possible, gets the target's elements and a
volume scaled by mean atomic volumes; nothing is relaxed. The ensemble predicts the energy of the relaxed target from
the stand-in. Reported for the relaxed target itself, the stand-in as it is, and the stand-in scanned over volumes,
with both orders of the two reductions (minimum over volumes inside each member and then the median over members, or
the median first): mean absolute error and bias against the target's own energy, share of minima at the smallest
volume, and precision and recall of "within 50 meV/atom of the hull" (the table's `energy_above_hull_est` plus the
error).
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from opengnome.crystals import Crystal, CrystalTable, with_volume
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.crystals.io import read_table
from opengnome.crystals.symmetry import symmetry_dataset
from opengnome.datasets import held_out_mask
from opengnome.errors import InvalidCrystalError
from opengnome.graphs import batch_of, orbit_graph
from opengnome.models import VOLUME_SCALES, Ensemble, shipped_ensemble
from opengnome.models.numerics import numerics
from opengnome.models.scan import energy_curves, scan_cutoff

MAX_ATOMS = 40
WINDOW = 0.05  # eV/atom above the hull
LEVELS = (0.5, 0.8, 0.95)

Roles = tuple[tuple[tuple[int, str], int], ...]
"""((atoms, Wyckoff letters), element) of each element of a crystal, sorted by the first."""


def roles_of(crystal: Crystal) -> tuple[str, Roles] | None:
    """Prototype label and the elements by their role in it; None when no space group is found."""
    try:
        found = symmetry_dataset(crystal)
    except InvalidCrystalError:
        return None
    letters = np.array(found.wyckoffs)
    roles = []
    for z in np.unique(crystal.atomic_numbers).tolist():
        mine = letters[crystal.atomic_numbers == z]
        roles.append(((len(mine), "".join(sorted(mine))), z))
    ordered = tuple(sorted(roles))
    label = f"{found.number}:{crystal.n_atoms}:" + "/".join(f"{n}{w}" for (n, w), _ in ordered)
    return label, ordered


def atomic_volumes(table: CrystalTable) -> np.ndarray:
    """Non-negative volume per atom of each element that fit the cells of `table` best, A^3."""
    counts = np.zeros((len(table), MAX_ATOMIC_NUMBER + 1))
    crystal_of_atom = np.repeat(np.arange(len(table)), table.n_atoms)
    np.add.at(counts, (crystal_of_atom, table.flat_atomic_numbers), 1.0)
    volumes = np.abs(np.linalg.det(table.lattices))
    per_atom = table.n_atoms[:, None]
    return nnls(counts / per_atom, volumes / table.n_atoms)[0]


def substituted(parent: Crystal, parent_roles: Roles, target_roles: Roles, volumes: np.ndarray) -> Crystal:
    """The parent with the target's elements in the same roles, volume scaled by mean atomic volumes."""
    replacement = {old: new for (_, old), (_, new) in zip(parent_roles, target_roles, strict=True)}
    numbers = np.array([replacement[z] for z in parent.atomic_numbers.tolist()])
    ratio = volumes[numbers].sum() / volumes[parent.atomic_numbers].sum()
    return with_volume(Crystal(parent.lattice, parent.frac_coords, numbers), parent.volume * ratio)


@dataclass(frozen=True)
class Pair:
    """A target (row of the table) and its unrelaxed stand-in."""

    row: int
    stand_in: Crystal
    n_replaced: int


def pairs(table: CrystalTable, held_out: np.ndarray, n_targets: int, rng: np.random.Generator) -> list[Pair]:
    small = np.flatnonzero(table.n_atoms <= MAX_ATOMS)
    with Pool() as pool:
        found = pool.map(roles_of, [table[int(row)] for row in small], chunksize=200)
    roles = {int(row): result for row, result in zip(small, found, strict=True) if result is not None}
    by_label: dict[str, list[int]] = defaultdict(list)
    for row, (label, _) in roles.items():
        if not held_out[row]:
            by_label[label].append(row)
    volumes = atomic_volumes(table.filter(~held_out))
    made = []
    for row in rng.permutation([row for row in roles if held_out[row]]).tolist():
        label, mine = roles[row]
        parents = [p for p in by_label.get(label, []) if roles[p][1] != mine]
        if not parents:
            continue
        different = [sum(a != b for a, b in zip(roles[p][1], mine, strict=True)) for p in parents]
        nearest = [p for p, n in zip(parents, different, strict=True) if n == min(different)]
        parent = int(rng.choice(nearest))
        made.append(Pair(row, substituted(table[parent], roles[parent][1], mine, volumes), min(different)))
        if len(made) == n_targets:
            break
    return made


def batches(crystals: list[Crystal], max_atoms: int = 400) -> Iterator[list[int]]:
    batch: list[int] = []
    total = 0
    for index, crystal in enumerate(crystals):
        if batch and total + crystal.n_atoms > max_atoms:
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += crystal.n_atoms
    yield batch


def curves_of(ensemble: Ensemble, crystals: list[Crystal], scales: tuple[float, ...]) -> np.ndarray:
    """Energies (members, scales, crystals), eV/atom."""
    cutoff = scan_cutoff(ensemble.members[0].settings.cutoff, scales)
    parts = []
    with numerics(threads=1):
        for rows in batches(crystals):
            graphs = batch_of([orbit_graph(crystals[i], cutoff=cutoff, max_neighbours_per_atom=3000) for i in rows])
            parts.append(energy_curves(ensemble.members, graphs, scales, bfloat16=True))
    return np.concatenate(parts, axis=2)


def judged(ensemble: Ensemble, members: np.ndarray, truth: np.ndarray, above: np.ndarray) -> dict[str, float]:
    """Figures of the median over `members` (m, n)."""
    low, median, high = np.quantile(members, [0.25, 0.5, 0.75], axis=0)
    errors = median - truth
    said, true = above + errors <= WINDOW, above <= WINDOW
    std = ensemble.calibration.std(high - low)
    row = {
        "mae": float(np.abs(errors).mean()),
        "median_absolute_error": float(np.median(np.abs(errors))),
        "bias": float(errors.mean()),
        "precision": float(true[said].mean()) if said.any() else float("nan"),
        "recall": float(said[true].mean()),
        "said_within": int(said.sum()),
    }
    for level in LEVELS:
        row[f"coverage_{level:g}"] = float(np.mean(np.abs(errors) <= ensemble.calibration.factor(level) * std))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--ensemble", type=Path, help="folder; the shipped ensemble by default")
    parser.add_argument("--targets", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ensemble = Ensemble.load(options.ensemble or shipped_ensemble())
    table = read_table(options.table)
    above = np.array([np.nan if v is None else max(v, 0.0) for v in table.column("energy_above_hull_est")])
    keep = np.isfinite(above)
    table, above = table.filter(keep), above[keep]
    truth = np.array(table.column("formation_energy_per_atom"), dtype=float)
    held_out = held_out_mask(table.reduced_formulas)
    made = pairs(table, held_out, options.targets, np.random.default_rng(options.seed))
    rows = np.array([pair.row for pair in made])
    truth, above = truth[rows], above[rows]
    stand_ins = [pair.stand_in for pair in made]
    relaxed = curves_of(ensemble, [table[int(row)] for row in rows], (1.0,))
    scanned = curves_of(ensemble, stand_ins, (1.0, *VOLUME_SCALES))
    result: dict[str, object] = {
        "targets": len(made),
        "mean_elements_replaced": float(np.mean([pair.n_replaced for pair in made])),
        "within_50_meV_of_hull": float((above <= WINDOW).mean()),
        "median_volume_error": float(np.median([abs(p.stand_in.volume / table[p.row].volume - 1.0) for p in made])),
        "relaxed": judged(ensemble, relaxed[:, 0], truth, above),
        "unrelaxed": judged(ensemble, scanned[:, 0], truth, above),
    }
    for width in (0.20, 0.10, 0.05):
        inside = [1 + i for i, s in enumerate(VOLUME_SCALES) if abs(s - 1.0) <= width + 1e-9]
        part = scanned[:, inside]
        edge = float((part.mean(axis=0).argmin(axis=0) == 0).mean())
        by_order = {
            "minimum_then_median": part.min(axis=1),
            "median_then_minimum": np.repeat(np.median(part, axis=0).min(axis=0)[None], len(part), axis=0),
        }
        for name, members in by_order.items():
            key = f"scan_{100 * (1 - width):.0f}_{100 * (1 + width):.0f}_{name}"
            result[key] = judged(ensemble, members, truth, above) | {"minimum_at_smallest_volume": edge}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
