"""Formation energies from fitted elemental references, beside calculated elements, without and with MP2020.

    python benchmarks/fitted_references.py --data DATA

The compounds of Fe, Li, Mn, O, P and Y that both the four Materials Project hull files and `mp_compositions.parquet`
hold: the lowest entry of each formula, against the tabulated formation energy. Root mean square differences, eV/atom.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from opengnome.crystals import Composition
from opengnome.hull.fitted_references import fit_references

SYSTEMS = ("Fe-Li-O-P", "Li-Fe-O", "Mn-O", "Mn-O-Y")


def lowest_energies(data: Path, *, corrected: bool) -> dict[str, float]:
    """Lowest energy of each reduced formula of the hull files, eV/atom."""
    lowest: dict[str, float] = {}
    for system in SYSTEMS:
        for row in pq.read_table(data / "hull_entries" / f"{system}.parquet").to_pylist():
            energy = (row["energy"] + corrected * row["correction"]) / row["n_atoms"]
            formula = Composition.from_formula(row["formula"]).reduced_formula
            lowest[formula] = min(energy, lowest.get(formula, np.inf))
    return lowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    table = pq.read_table(data / "mp_compositions.parquet", columns=["formula", "formation_energy_per_atom"])
    known = {Composition.from_formula(row["formula"]).reduced_formula: row for row in table.to_pylist()}
    print(f"{'energies':24s} {'compounds':>9s} {'calculated':>11s} {'fitted':>7s} {'left out':>9s}")
    for name, corrected in (("raw PBE and PBE+U", False), ("MP2020", True)):
        energies = lowest_energies(data, corrected=corrected)
        elements = {z: e for f, e in energies.items() for z in [Composition.from_formula(f)] if z.n_elements == 1}
        references = {composition.atomic_numbers[0]: energy for composition, energy in elements.items()}
        formulas = sorted(formula for formula in energies.keys() & known.keys())
        compositions = [Composition.from_formula(formula) for formula in formulas]
        calculated = np.array([energies[formula] for formula in formulas])
        truth = np.array([known[formula]["formation_energy_per_atom"] for formula in formulas])
        fit = fit_references(compositions, calculated, truth)
        own = [e - sum(n * references[z] for z, n in c.counts) / c.n_atoms for c, e in zip(compositions, calculated)]
        rms = float(np.sqrt(np.mean((np.array(own) - truth) ** 2)))
        print(f"{name:24s} {len(formulas):9d} {rms:11.3f} {fit.rmse:7.3f} {fit.left_out_rmse:9.3f}")


if __name__ == "__main__":
    main()
