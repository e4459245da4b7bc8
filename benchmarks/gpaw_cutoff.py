"""Energy and stress of rock-salt MgO at 4.25 A by plane-wave cutoff: why `gpaw.cutoff` is 800 eV.

    python benchmarks/gpaw_cutoff.py

PBE, 4 x 4 x 4 k-points centred at Gamma, one core. PBE has its minimum at 4.259 A (`docs/dft.md`), so that the right
stress is small and negative. CPU seconds of the calculation; the stress is that of a constant number of plane waves.
"""

import time

from ase import Atoms
from ase.build import bulk
from ase.units import GPa

CUTOFFS_EV = (520, 546, 600, 700, 800)
LATTICE_CONSTANT = 4.25


def calculated(cutoff: float) -> tuple[float, float, float]:
    """Energy (eV per cell), stress (GPa, tension positive) and CPU seconds."""
    from gpaw import GPAW, PW, FermiDirac

    atoms: Atoms = bulk("MgO", "rocksalt", a=LATTICE_CONSTANT)
    kpts = {"size": (4, 4, 4), "gamma": True}
    atoms.calc = GPAW(mode=PW(cutoff), xc="PBE", kpts=kpts, occupations=FermiDirac(0.05), txt=None)
    start = time.process_time()
    energy = atoms.get_potential_energy()
    stress = atoms.get_stress()[:3].mean()
    return energy, stress / GPa, time.process_time() - start


def main() -> None:
    print("| cutoff (eV) | energy (eV) | stress (GPa) | s of CPU |\n|--|--|--|--|")
    for cutoff in CUTOFFS_EV:
        energy, stress, seconds = calculated(cutoff)
        print(f"| {cutoff} | {energy:.4f} | {stress:.2f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
