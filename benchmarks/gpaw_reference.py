"""The GPAW oracle beside published numbers: lattice constants, formation energies, equation of state, forces.

    python benchmarks/gpaw_reference.py --data DIR --work DIR [--output FILE] [--only lattice formation ...]

DIR of `--data` holds `mp_crystals.parquet` and `hull_entries/` (needed by `formation` only). Killed, or ended by
`--minutes`, the same command goes on where it was: finished rows are in the output, a relaxation under way in
`--work`. Needs `opengnome[gpaw]`. One thread.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from opengnome.crystals import Composition, Crystal, with_volume
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.interop import from_ase
from opengnome.crystals.symmetry import primitive_cell
from opengnome.oracles import Calculation, RelaxationSettings, Status
from opengnome.oracles.gpaw_oracle import GpawOracle
from opengnome.oracles.gpaw_settings import GpawSettings

HARL = "Harl, Schimka, Kresse, Phys. Rev. B 81, 115126 (2010), table of PBE lattice constants (VASP)"
HAAS = "Haas, Tran, Blaha, Phys. Rev. B 79, 085104 (2009), table of PBE lattice constants (WIEN2k)"

LATTICE_CONSTANTS: dict[str, tuple[str, float, str]] = {
    "LiF": ("rocksalt", 4.069, HARL),
    "NaF": ("rocksalt", 4.707, HARL),
    "LiCl": ("rocksalt", 5.149, HARL),
    "NaCl": ("rocksalt", 5.697, HARL),
    "MgO": ("rocksalt", 4.259, HARL),
    "CaO": ("rocksalt", 4.832, HAAS),
    "MgS": ("rocksalt", 5.228, HAAS),
    "LiH": ("rocksalt", 4.006, HAAS),
    "AlN": ("zincblende", 4.397, HARL),
    "AlP": ("zincblende", 5.501, HARL),
    "AlAs": ("zincblende", 5.727, HARL),
    "GaP": ("zincblende", 5.507, HARL),
    "SiC": ("zincblende", 4.378, HARL),
    "C": ("diamond", 3.569, HARL),
    "Si": ("diamond", 5.466, HARL),
    "Na": ("bcc", 4.196, HARL),
    "Al": ("fcc", 4.035, HARL),
    "Cu": ("fcc", 3.634, HARL),
}
"""Prototype, PBE lattice constant of the conventional cell in A, source."""

BINARIES = {
    "AlAs": "mp-2172", "AlP": "mp-1550", "GaAs": "mp-2534", "GaP": "mp-2490", "CaTe": "mp-1519", "Li2Te": "mp-2530",
    "LiAl": "mp-1067", "Mg2Ge": "mp-408", "Mg2Si": "mp-1367", "Na2Te": "mp-2784", "Li2O": "mp-1960", "Li3P": "mp-736",
}  # fmt: skip
"""Without an anion that the Materials Project corrected in 2018, so that its formation energies are plain PBE;
Li2O and Li3P are from the uncorrected totals of `hull_entries/Fe-Li-O-P.parquet`."""
FROM_TOTALS = ("Li2O", "Li3P")
ELEMENTS = {
    "Al": "mp-134", "As": "mp-11", "P": "mp-157", "Ga": "mp-142", "Ca": "mp-45", "Te": "mp-19", "Li": "mp-135",
    "Mg": "mp-153", "Ge": "mp-32", "Si": "mp-149", "Na": "mp-127", "O": "mp-1009490",
}  # fmt: skip
"""Small crystals of the elements; where one is not the ground state its energy above that is subtracted."""

PARTS = ("lattice", "formation", "eos", "forces", "functionals", "chgnet")
START_TOO_LARGE = 1.03
"""Volume of the start over the published one: the relaxation has something to do."""


class Rows:
    """The rows of the output by part and name; on disk after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.content["machine"] = {"processor": platform.processor() or platform.machine(), "threads": 1}

    def has(self, part: str, name: str) -> bool:
        return name in self.content.get(part, {})

    def add(self, part: str, name: str, row: dict[str, Any]) -> None:
        self.content.setdefault(part, {})[name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self.path)
        print(part, name, json.dumps(row), flush=True)


def main() -> None:
    arguments = _arguments()
    rows = Rows(arguments.output)
    deadline = time.monotonic() + 60 * arguments.minutes
    for part, name, work in _work(arguments):
        if rows.has(part, name):
            continue
        if time.monotonic() > deadline:
            print("out of time; run again to go on")
            break
        rows.add(part, name, work())
    print_tables(rows.content)


def _work(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """Part, name and function of every row asked for."""
    settings = GpawSettings(folder=arguments.work / "gpaw", functional="pbe", cutoff=arguments.cutoff)
    named: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {part: {} for part in PARTS}
    for name in LATTICE_CONSTANTS:
        named["lattice"][name] = lambda name=name: lattice_row(name, settings)
    for name in (*ELEMENTS, *BINARIES):
        named["formation"][name] = lambda name=name: formation_row(name, settings, arguments.data)
    for name in ("NaCl", "MgO"):
        named["eos"][name] = lambda name=name: eos_row(name, settings)
    for name in ("ZnS", "TiO2"):
        named["forces"][name] = lambda name=name: forces_row(name, settings)
    for functional in ("pbe", "pbe+u"):
        named["functionals"][f"NiO {functional}"] = lambda functional=functional: functional_row(
            rocksalt("NiO", 4.17), functional, settings
        )
    for name, a in (("LiF", 4.03), ("NaCl", 5.6)):
        named["functionals"][f"{name} r2scan"] = lambda name=name, a=a: functional_row(
            rocksalt(name, a), "r2scan", settings
        )
    for name in ("ZnS", "KMgF3"):
        named["chgnet"][name] = lambda name=name: chgnet_row(name, settings)
    for part in arguments.only:
        for name, work in named[part].items():
            if arguments.crystals is None or name in arguments.crystals:
                yield part, name, work


def lattice_row(name: str, settings: GpawSettings) -> dict[str, Any]:
    """Relaxation from a cell 1 % too long; the lattice constant beside the published one."""
    prototype, published, source = LATTICE_CONSTANTS[name]
    start = bulk(name, prototype, published)
    calculation = relax(with_volume(start, start.volume * START_TOO_LARGE), settings)
    row = summary(calculation)
    if calculation.crystal is not None:
        a = published * (calculation.crystal.volume / start.volume) ** (1 / 3)
        row |= {"a": round(a, 4), "error_percent": round(100 * (a / published - 1), 3)}
    return row | {"prototype": prototype, "published_a": published, "source": source}


def formation_row(name: str, settings: GpawSettings, data: Path) -> dict[str, Any]:
    """Total energy of one crystal of the Materials Project, from its structure there."""
    identifier = (ELEMENTS | BINARIES)[name]
    crystal, formation_energy = mp_crystal(data, identifier)
    row = summary(relax(primitive_cell(crystal), settings)) | {"id": identifier}
    if name in FROM_TOTALS:
        formation_energy = from_totals(data, name)
    return row | {"mp_formation_energy_per_atom": round(formation_energy, 4)}


def eos_row(name: str, settings: GpawSettings) -> dict[str, Any]:
    """Energies at nine volumes, their scatter about a Birch-Murnaghan curve, and the stress beside its slope."""
    from ase.eos import EquationOfState
    from ase.units import GPa

    crystal = rocksalt(name, LATTICE_CONSTANTS[name][1])
    scales = np.linspace(0.92, 1.08, 9)
    points = [
        relax(with_volume(crystal, crystal.volume * scale), settings, RelaxationSettings(max_steps=0))
        for scale in scales
    ]
    volumes, energies = crystal.volume * scales, np.array([point.energy for point in points])
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    volume, _, modulus = fit.fit(warn=False)
    residuals = energies - fit.func(volumes, *fit.eos_parameters)
    slopes = np.gradient(energies, volumes)[1:-1]  # dE/dV, the stress of a hydrostatic strain
    stresses = np.array([np.trace(point.stress) / 3 for point in points])[1:-1]
    return {
        "volumes": volumes.round(4).tolist(),
        "energies": energies.round(6).tolist(),
        "rms_residual_mev_per_atom": round(1000 * float(np.sqrt(np.mean(residuals**2))) / crystal.n_atoms, 4),
        "a": round(float(4 * volume) ** (1 / 3), 4),
        "bulk_modulus_gpa": round(float(modulus / GPa), 1),
        "largest_difference_of_stress_and_slope_gpa": round(float(np.abs(stresses - slopes).max() / GPa), 3),
    }


def forces_row(name: str, settings: GpawSettings) -> dict[str, Any]:
    """Forces of displaced atoms beside central differences of the energy, eV/A."""
    crystal, step = PROTOTYPES[name](), 0.01
    rng = np.random.default_rng(0)
    positions = crystal.positions + rng.normal(0.0, 0.05, (crystal.n_atoms, 3))
    loose = settings.model_copy(update={"static_kpoint_density": 10.0, "symprec": 1e-4})

    def point(moved: np.ndarray) -> Calculation:
        frac_coords = np.linalg.solve(crystal.lattice.T, moved.T).T
        displaced = Crystal(crystal.lattice, frac_coords, crystal.atomic_numbers)
        return relax(displaced, loose, RelaxationSettings(max_steps=0))

    forces = point(positions).forces
    differences = []
    for atom, axis in ((0, 0), (crystal.n_atoms - 1, 2)):
        energies = []
        for sign in (-1, 1):
            moved = positions.copy()
            moved[atom, axis] += sign * step
            energies.append(point(moved).energy)
        differences.append(float(forces[atom, axis] + (energies[1] - energies[0]) / (2 * step)))
    return {
        "largest_force": round(float(np.abs(forces).max()), 4),
        "difference_from_energies": [round(value, 5) for value in differences],
    }


def functional_row(crystal: Crystal, functional: str, settings: GpawSettings) -> dict[str, Any]:
    """One relaxation with a functional; cell, gap and level."""
    calculation = relax(crystal, settings.model_copy(update={"functional": functional}))
    row = summary(calculation) | {"level": calculation.oracle.level}
    if calculation.crystal is not None:
        row["a"] = round((4 * calculation.crystal.volume) ** (1 / 3), 4)
    return row


def chgnet_row(name: str, settings: GpawSettings) -> dict[str, Any]:
    """Evaluations and seconds with and without the pre-relaxation, from a cell 4 % too long, displaced atoms."""
    crystal = PROTOTYPES[name]()
    start = with_volume(crystal, crystal.volume * 1.12)
    found = {}
    for prerelax in ("none", "chgnet"):
        chosen = settings.model_copy(update={"prerelax": prerelax})
        found[prerelax] = summary(relax(start, chosen))
    return found


def relax(crystal: Crystal, settings: GpawSettings, relaxation: RelaxationSettings | None = None) -> Calculation:
    """With a day's limit in place of the 600 s of a potential."""
    chosen = relaxation or RelaxationSettings(fmax=0.02)
    calculation = GpawOracle(settings, chosen.model_copy(update={"timeout_s": 86400.0})).relax(crystal)
    if calculation.energy is None or calculation.status is Status.TIMED_OUT:
        print(f"{crystal!r}: {calculation.status.value}, {calculation.reason}")
    return calculation


def summary(calculation: Calculation) -> dict[str, Any]:
    energy, gap = calculation.energy_per_atom, calculation.band_gap
    return {
        "status": calculation.status.value,
        "reason": calculation.reason,
        "energy_per_atom": None if energy is None else round(energy, 5),
        "band_gap": None if gap is None else round(gap, 3),
        "n_frames": 0 if calculation.frames is None else len(calculation.frames),
        "seconds": round(calculation.seconds, 1),
        "corrections": list(calculation.corrections),
        "n_atoms": calculation.initial.n_atoms,
    }


def bulk(name: str, prototype: str, a: float) -> Crystal:
    from ase.build import bulk as ase_bulk

    return from_ase(ase_bulk(name, prototype, a=a))


def rocksalt(name: str, a: float) -> Crystal:
    return bulk(name, "rocksalt", a)


def wurtzite_zns() -> Crystal:
    from ase.build import bulk as ase_bulk

    return from_ase(ase_bulk("ZnS", "wurtzite", a=3.84, c=6.28))


def rutile() -> Crystal:
    x = 0.305
    frac = [[0, 0, 0], [0.5] * 3, [x, x, 0], [-x, -x, 0], [0.5 + x, 0.5 - x, 0.5], [0.5 - x, 0.5 + x, 0.5]]
    return Crystal(np.diag([4.65, 4.65, 2.97]), np.array(frac), np.array([22, 22, 8, 8, 8, 8]))


def fluoroperovskite() -> Crystal:
    frac = [[0.5] * 3, [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return Crystal(4.06 * np.eye(3), np.array(frac), np.array([19, 12, 9, 9, 9]))


PROTOTYPES: dict[str, Callable[[], Crystal]] = {"ZnS": wurtzite_zns, "TiO2": rutile, "KMgF3": fluoroperovskite}


def mp_crystal(data: Path, identifier: str) -> tuple[Crystal, float]:
    """Crystal and formation energy (eV/atom) of an id in `mp_crystals.parquet`."""
    table = pq.read_table(data / "mp_crystals.parquet", filters=[("material_id", "=", identifier)])
    if table.num_rows != 1:
        raise SystemExit(f"{data / 'mp_crystals.parquet'} has {table.num_rows} rows of {identifier}")
    row = table.to_pylist()[0]
    frac_coords = np.array(row["frac_coords"], dtype=float).reshape(-1, 3)
    lattice = np.array(row["lattice"], dtype=float).reshape(3, 3)
    return Crystal(lattice, frac_coords, np.array(row["atomic_numbers"])), row["formation_energy_per_atom"]


def from_totals(data: Path, formula: str) -> float:
    """Formation energy from uncorrected totals: the lowest of the formula and of its elements, eV/atom."""
    table = pq.read_table(data / "hull_entries" / "Fe-Li-O-P.parquet").to_pylist()
    lowest: dict[str, float] = {}
    for row in table:
        name = {"O2": "O"}.get(row["reduced_formula"], row["reduced_formula"])
        lowest[name] = min(lowest.get(name, np.inf), row["energy"] / row["n_atoms"])
    fractions = Composition.from_formula(formula).fractions
    return lowest[formula] - sum(fraction * lowest[SYMBOLS[z]] for z, fraction in fractions.items())


def formation_energies(rows: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Ours and the Materials Project's, eV/atom, of the binaries whose elements are all there."""
    found = {}
    for name in BINARIES:
        fractions = {SYMBOLS[z]: x for z, x in Composition.from_formula(name).fractions.items()}
        energies = {part: rows.get(part, {}).get("energy_per_atom") for part in (name, *fractions)}
        if None in energies.values():
            continue
        ours = energies[name] - sum(
            x * (energies[element] - rows[element]["mp_formation_energy_per_atom"]) for element, x in fractions.items()
        )
        found[name] = (ours, rows[name]["mp_formation_energy_per_atom"])
    return found


def print_tables(content: dict[str, Any]) -> None:
    lattice = content.get("lattice", {})
    if lattice:
        print("\n| crystal | a (A) | published | error (%) | evaluations | s |\n|--|--|--|--|--|--|")
    for name, row in lattice.items():
        measured = f"{row.get('a')} | {row['published_a']} | {row.get('error_percent')}"
        print(f"| {name} | {measured} | {row['n_frames']} | {row['seconds']} |")
    energies = formation_energies(content.get("formation", {}))
    if energies:
        print("\n| binary | formation energy (eV/atom) | Materials Project | difference (meV/atom) |\n|--|--|--|--|")
    for name, (ours, theirs) in energies.items():
        print(f"| {name} | {ours:.3f} | {theirs:.3f} | {1000 * (ours - theirs):.0f} |")
    for part in ("eos", "forces", "functionals", "chgnet"):
        for name, row in content.get(part, {}).items():
            print(f"\n{part}, {name}: {json.dumps(row)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public tables")
    parser.add_argument("--work", type=Path, required=True, help="folder of the calculations under way")
    parser.add_argument("--output", type=Path, default=Path("docs/results/gpaw_reference.json"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--crystals", nargs="+", help="only rows of these names")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further row after so long")
    parser.add_argument("--cutoff", type=float, default=GpawSettings().cutoff, help="eV")
    return parser.parse_args()


if __name__ == "__main__":
    main()
