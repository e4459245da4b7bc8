"""Stands in for pw.x: reads espresso.pwi in the current folder and prints what pw.x 7.3 would print.

    python pw_stand_in.py '{"volume": 40.0, "behaviour": "good"}' -in espresso.pwi

The energy is -100 eV per atom plus a parabola in the volume (A^3) with a bulk modulus of 0.5 eV/A^3; the forces are
zero. Behaviours: good; slow (good after 0.3 s); metal (a level crosses the Fermi energy); scf (the electrons do not
converge); mixing (they do with a mixing of 0.2 or less); routine (an error message of pw.x); crash (ends in the
middle with code 139); full_disk (ends with what the Fortran runtime says then); hang (never ends); third, third_hangs
(crash, hang in the third run). It needs no package, to start fast.
"""

import json
import re
import sys
import time
from pathlib import Path

RYDBERG_EV, BOHR_A = 13.605693122994, 0.529177210903
BULK_MODULUS = 0.5
ERROR = """
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
     Error in routine readpp (1):
     file ./Si.UPF not readable
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
"""


def main() -> int:
    options = json.loads(sys.argv[1])
    behaviour = options.get("behaviour", "good")
    with Path("starts.txt").open("a") as starts:
        starts.write(f"{behaviour}\n")
    n_starts = len(Path("starts.txt").read_text().splitlines())
    if behaviour.startswith("third"):
        behaviour = {"third": "crash", "third_hangs": "hang"}[behaviour] if n_starts == 3 else "good"
    text = Path(sys.argv[3]).read_text()
    cell = rows(text, "CELL_PARAMETERS angstrom", 3)
    n_atoms = int(re.search(r"nat\s*=\s*(\d+)", text)[1])
    atoms = [line.split() for line in text.split("ATOMIC_POSITIONS angstrom\n")[1].splitlines()[:n_atoms]]
    print_start(cell, atoms)
    if behaviour == "hang":
        sys.stdout.flush()
        time.sleep(600)
    if behaviour == "slow":
        time.sleep(0.3)
    if behaviour == "full_disk":
        print("Fortran runtime error: No space left on device", file=sys.stderr)
        return 2
    if behaviour == "routine":
        print(ERROR)
        return 1
    if behaviour == "scf" or (behaviour == "mixing" and float(re.search(r"mixing_beta\s*=\s*(\S+)", text)[1]) > 0.2):
        print("     convergence NOT achieved after 200 iterations: stopping")
        return 2
    if behaviour == "crash":
        print("     iteration #  1     ecut=    30.00 Ry     beta= 0.40")
        print("Segmentation fault (core dumped)", file=sys.stderr)
        return 139
    print_result(
        cell, atoms, options["volume"], is_metal=behaviour == "metal", has_stress="tstress          = .true." in text
    )
    print("   JOB DONE.")
    return 0


def print_start(cell, atoms):
    alat = cell[0][0] or cell[0][1]
    print("     Program PWSCF v.7.3 starts on 26Nov2026 at  0:47:23\n")
    print("     bravais-lattice index     =            0")
    print(f"     lattice parameter (alat)  =  {alat / BOHR_A:12.8f}  a.u.")
    print(f"     number of atoms/cell      = {len(atoms):12d}")
    print(f"     number of atomic types    = {len({atom[0] for atom in atoms}):12d}\n")
    print(f"     celldm(1)={alat / BOHR_A:14.9f}  celldm(2)=   0.000000  celldm(3)=   0.000000\n")
    print("     crystal axes: (cart. coord. in units of alat)")
    for number, row in enumerate(cell, start=1):
        print(f"               a({number}) = ( {' '.join(f'{x / alat:.12f}' for x in row)} )")
    print("\n     atomic species   valence    mass     pseudopotential")
    for symbol in sorted({atom[0] for atom in atoms}):
        print(f"     {symbol:<14s}{4.0:7.2f}{28.0:13.5f}     {symbol}( 1.00)")
    print("\n     site n.     atom                  positions (alat units)")
    for number, (symbol, *position) in enumerate(atoms, start=1):
        scaled = " ".join(f"{float(x) / alat:.9f}" for x in position[:3])
        print(f"     {number:5d}  {symbol:>10s}  tau({number:4d}) = ( {scaled}  )")
    print("\n     number of k points=     2  cold smearing, width (Ry)=  0.0100")
    print("                       cart. coord. in units 2pi/alat")
    print("        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   1.0000000")
    print("        k(    2) = (   0.5000000   0.5000000   0.5000000), wk =   1.0000000\n")


def print_result(cell, atoms, equilibrium, *, is_metal, has_stress):
    now = volume(cell)
    energy = -100.0 * len(atoms) + 0.5 * BULK_MODULUS * (now - equilibrium) ** 2 / equilibrium
    stress = BULK_MODULUS * (now - equilibrium) / equilibrium  # eV/A^3, positive under tension
    print("     End of self-consistent calculation\n")
    print("          k = 0.0000 0.0000 0.0000 (   411 PWs)   bands (ev):\n\n    -5.7000   5.9000   8.5000   9.1000\n")
    print("     occupation numbers \n     1.0000   1.0000   0.0000   0.0000\n")
    third = 6.5 if is_metal else 7.2
    print("          k = 0.5000 0.5000 0.5000 (   431 PWs)   bands (ev):\n")
    print(f"    -4.7000   2.5000  {third:8.4f}  11.6000\n")
    print(f"     occupation numbers \n     1.0000   1.0000   {float(is_metal):.4f}   0.0000\n")
    print("     the Fermi energy is     6.6000 ev\n")
    print(f"!    total energy              = {energy / RYDBERG_EV:16.10f} Ry\n")
    print("     Forces acting on atoms (cartesian axes, Ry/au):\n")
    for number in range(1, len(atoms) + 1):
        print(f"     atom {number:4d} type  1   force =     0.00000000    0.00000000    0.00000000")
    print("\n     Total force =     0.000000     Total SCF correction =     0.000000\n")
    if has_stress:
        printed = -stress / RYDBERG_EV * BOHR_A**3
        print("     Computing stress (Cartesian axis) and pressure\n")
        print(f"          total   stress  (Ry/bohr**3)                   (kbar)     P=  {-stress * 1602.1766208:12.2f}")
        for axis in range(3):
            row = [printed if axis == other else 0.0 for other in range(3)]
            print(" ".join(f"{x:16.12f}" for x in row + row))
    print()


def rows(text, card, n_rows):
    lines = text.split(f"{card}\n")[1].splitlines()[:n_rows]
    return [[float(word) for word in line.split()[:3]] for line in lines]


def volume(cell):
    (a, b, c), (d, e, f), (g, h, i) = cell
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


if __name__ == "__main__":
    sys.exit(main())
