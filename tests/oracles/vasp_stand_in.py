"""Stands in for VASP: reads the inputs in the current folder and writes the outputs VASP would write.

    python vasp_stand_in.py '{"relax1": "good", "static": "crash"}' [recorded vasprun.xml.gz]

The energy is a parabola in the length of the cell, lowest 2 % above the input, plus a force on the first atom that
halves with every step. Behaviours, by the name of the folder: good; slow (0.05 s per ionic step); unconverged (as
many ionic steps as NSW allows); electronic (as many electronic steps as NELM allows); crash (ends with an error in
the middle of a file); full_disk (the same, with what the Fortran runtime says when the disk is full); hang (makes no
progress and ends at a STOPCAR only); sloppy_hang (the same, but ends in the middle of the electronic steps);
brmix_once (an error that custodian knows, gone after one correction); late_brmix_once (the same after three ionic
steps, of which the second has unconverged electrons); drift (an atom crosses the border of the cell); metal
(no band gap); explode (a cell
of four times the length); deep (energies of -60 eV/atom); replay (writes the recorded file); replay_cut (writes half
of it). It needs no package, to start fast.
"""

import gzip
import json
import sys
import time
from pathlib import Path

EV_PER_A3_IN_KBAR = 1602.1766208
VERSION = "6.4.2"


def main() -> int:
    behaviours = json.loads(sys.argv[1])
    behaviour = behaviours.get(Path.cwd().name, behaviours.get("default", "good"))
    with Path("starts.txt").open("a") as starts:
        starts.write(f"{behaviour}\n")
    if behaviour.startswith("replay"):
        return replay(Path(sys.argv[2]), cut=behaviour == "replay_cut")
    is_first = len(Path("starts.txt").read_text().splitlines()) == 1
    if behaviour == "brmix_once" and is_first:
        print("BRMIX: very serious problems the old and the new charge density differ")
        Path("OUTCAR").write_text("")
        return 1
    if behaviour == "late_brmix_once" and not is_first:
        behaviour = "good"
    return run(behaviour)


def replay(recorded: Path, *, cut: bool) -> int:
    text = gzip.decompress(recorded.read_bytes())
    Path("vasprun.xml").write_bytes(text[: len(text) // 2] if cut else text)
    Path("CONTCAR").write_bytes(Path("POSCAR").read_bytes())
    Path("OUTCAR").write_text(outcar(0.0, 1))
    Path("OSZICAR").write_text("")
    if cut:
        print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr)
    return 174 if cut else 0


def run(behaviour: str) -> int:
    incar = read_incar()
    lattice, symbols, counts, fractions = read_poscar()
    relaxes = int(incar.get("NSW", 0)) > 0
    n_max = int(incar["NSW"]) if relaxes else 1
    goal = 4.0 if behaviour == "explode" else 1.02
    write = Writer(incar, lattice, symbols, counts, fractions, is_metal=behaviour == "metal")
    hangs = behaviour in ("hang", "sloppy_hang")
    force, scale = (0.4 if relaxes else 1e-4), 1.0
    for number in range(1, n_max + 1):
        if behaviour == "slow" or hangs:
            time.sleep(0.05)
        energy = (-60.0 if behaviour == "deep" else -3.0) * sum(counts) + 20.0 * (scale - goal) ** 2 + 0.1 * force
        # the derivative of the energy with respect to each diagonal strain, over the volume
        pressure_kbar = -EV_PER_A3_IN_KBAR * 40.0 * (scale - goal) * scale / 3 / (volume(lattice) * scale**3)
        unconverged = behaviour == "electronic" or (behaviour == "late_brmix_once" and number == 2)
        n_electronic = int(incar.get("NELM", 60)) if unconverged else 4
        stopped = hangs and Path("STOPCAR").exists()
        current = [[scale * x for x in row] for row in lattice]
        write.ionic_step(
            current, fractions, energy, force, pressure_kbar, n_electronic, cut_short=stopped and behaviour != "hang"
        )
        done = force < 1e-3 and behaviour != "unconverged" and not hangs
        if done or stopped or number == n_max:
            break
        if behaviour == "late_brmix_once" and number == 3:
            print("BRMIX: very serious problems the old and the new charge density differ")
            return 1
        if behaviour == "full_disk" and number == 3:
            write.crash()
            print("forrtl: No space left on device", file=sys.stderr)
            print("forrtl: severe (38): error during write, unit 12, file CHGCAR", file=sys.stderr)
            return 38
        if behaviour == "crash" and number == 3:
            write.crash()
            print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr)
            return 174
        if not hangs:
            scale += 0.5 * (goal - scale)
            force *= 1.0 if behaviour == "unconverged" else 0.5
        x = fractions[0][0] - (0.02 if behaviour == "drift" else 0.002)
        fractions = [[x % 1.0, *fractions[0][1:]], *fractions[1:]]
        write_poscar("CONTCAR", [[scale * x for x in row] for row in lattice], symbols, counts, fractions)
    write_poscar("CONTCAR", current, symbols, counts, fractions)
    write.end(current, fractions)
    if hangs:
        with Path("OUTCAR").open("a") as file:
            file.write(" hard stop encountered!  aborting job ...\n")
    return 0


class Writer:
    """vasprun.xml, OUTCAR and OSZICAR, extended step by step as VASP does."""

    def __init__(self, incar, lattice, symbols, counts, fractions, *, is_metal):
        self.is_metal = is_metal
        self.spin = incar.get("ISPIN", "1") == "2"
        self.n_steps, self.last_energy = 0, 0.0
        self.ediff = float(incar.get("EDIFF", 1e-4))
        self.counts = counts
        Path("OSZICAR").write_text("")
        Path("OUTCAR").write_text("")
        tags = "".join(f' <i name="{name}"{kind_of(name)}>{text}</i>\n' for name, text in typed(incar))
        atoms = "".join(
            f"<rc><c>{symbol}</c><c>{kind}</c></rc>\n"
            for kind, (symbol, count) in enumerate(zip(symbols, counts, strict=True), start=1)
            for _ in range(count)
        )
        titles = [line.split("=")[1].strip() for line in Path("POTCAR").read_text().splitlines() if "TITEL" in line]
        kinds = "".join(
            f"<rc><c>{count}</c><c>{symbol}</c><c>1.0</c><c>1.0</c><c>{title}</c></rc>\n"
            for symbol, count, title in zip(symbols, counts, titles, strict=True)
        )
        parameters = {"NELM": "60", "NSW": "0", "IBRION": "-1", "EDIFF": "1e-4", "EDIFFG": "1e-3", "ISPIN": "1"} | incar
        parameters["NELECT"] = str(8.0 * sum(counts))
        both = "".join(f' <i name="{name}"{kind_of(name)}>{text}</i>\n' for name, text in typed(parameters))
        Path("vasprun.xml").write_text(
            '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>\n'
            f'<i name="program" type="string">vasp </i><i name="version" type="string">{VERSION}  </i>\n</generator>\n'
            f"<incar>\n{tags}</incar>\n"
            '<kpoints><generation param="Gamma"><v type="int" name="divisions">2 2 2</v>'
            '<v name="usershift">0 0 0</v></generation><varray name="kpointlist"><v>0 0 0</v></varray>'
            '<varray name="weights"><v>1</v></varray></kpoints>\n'
            f"<parameters>\n{both}</parameters>\n"
            f'<atominfo><atoms>{sum(counts)}</atoms><types>{len(counts)}</types><array name="atoms"><set>\n{atoms}'
            f'</set></array><array name="atomtypes"><set>\n{kinds}</set></array></atominfo>\n'
            + structure(lattice, fractions, "initialpos")
        )

    def append(self, text):
        with Path("vasprun.xml").open("a") as file:
            file.write(text)

    def ionic_step(self, lattice, fractions, energy, force, pressure_kbar, n_electronic, *, cut_short):
        self.n_steps += 1
        change = 10.0 * self.ediff if cut_short else 0.5 * self.ediff
        electronic = [energy + change * (n_electronic - number) for number in range(1, n_electronic + 1)]
        steps = "".join(f"<scstep>{energies(value)}</scstep>\n" for value in electronic)
        rows = f"<v>{force:.8f} 0.0 0.0</v>\n" + "<v>0.0 0.0 0.0</v>\n" * (sum(self.counts) - 1)
        p = f"{pressure_kbar:.8f}"
        stress = f"<v>{p} 0.0 0.0</v>\n<v>0.0 {p} 0.0</v>\n<v>0.0 0.0 {p}</v>\n"
        # the band gap is 2.5 eV; energy and e_0_energy of the ionic step are wrong in VASP 5, as here
        filled, empty = (1.5, -1.0) if self.is_metal else (-1.0, 1.5)
        bands = "".join(
            f'<set comment="spin {spin}"><set comment="kpoint 1"><r>{filled} 1.0</r><r>{empty} 0.0</r></set></set>'
            for spin in ((1, 2) if self.spin else (1,))
        )
        self.append(
            f"<calculation>\n{steps}{structure(lattice, fractions)}"
            f'<varray name="forces">\n{rows}</varray>\n<varray name="stress">\n{stress}</varray>\n'
            f'<energy><i name="e_fr_energy">{energy - 0.01:.8f}</i><i name="e_wo_entrp">{energy:.8f}</i>'
            f'<i name="e_0_energy">0.0</i></energy>\n'
            f"<eigenvalues><array><set>{bands}</set></array></eigenvalues>\n"
            '<dos><i name="efermi">0.0</i></dos>\n</calculation>\n'
        )
        with Path("OSZICAR").open("a") as file:
            file.write("       N       E                     dE             d eps       ncg     rms          rms(c)\n")
            for number, value in enumerate(electronic, start=1):
                file.write(f"DAV: {number:3d}    {value:.9E}    0.1E-05   -0.1E-05   100   0.1E-01\n")
            file.write(
                f"{self.n_steps:4d} F= {energy - 0.01:.8E} E0= {energy:.8E}  d E ={energy - self.last_energy:.6E}\n"
            )
        self.last_energy = energy
        with Path("OUTCAR").open("a") as file:
            file.write(outcar(0.25, sum(self.counts)))

    def crash(self):
        self.append("<calculation>\n<scstep><energy><i name=")

    def end(self, lattice, fractions):
        self.append(structure(lattice, fractions, "finalpos") + "</modeling>\n")


def energies(free):
    """The energy extrapolated to zero smearing is 0.01 eV above the free energy."""
    return (
        f'<energy><i name="e_fr_energy">{free - 0.01:.8f}</i><i name="e_wo_entrp">{free:.8f}</i>'
        f'<i name="e_0_energy">{free:.8f}</i></energy>'
    )


def structure(lattice, fractions, name=None):
    rows = "".join(f"<v>{x:.8f} {y:.8f} {z:.8f}</v>\n" for x, y, z in lattice)
    sites = "".join(f"<v>{x:.8f} {y:.8f} {z:.8f}</v>\n" for x, y, z in fractions)
    attribute = "" if name is None else f' name="{name}"'
    return (
        f'<structure{attribute}><crystal><varray name="basis">\n{rows}</varray></crystal>'
        f'<varray name="positions">\n{sites}</varray></structure>\n'
    )


def outcar(moment, n_atoms):
    """Every atom has the same moment."""
    columns = " # of ion       s       p       d       tot\n"
    rows = "".join(
        f"{number:5d}       0.000   0.000  {moment:6.3f}  {moment:6.3f}\n" for number in range(1, n_atoms + 1)
    )
    return (
        f" number of electron      16.0000000 magnetization  {moment * n_atoms:11.7f}\n"
        f" magnetization (x)\n \n{columns}{'-' * 42}\n{rows}{'-' * 42}\ntot         0.000   0.000   0.000   0.000\n"
        "      LOOP+:  cpu time    1.0000: real time    1.0000\n"
    )


def typed(tags):
    return [(name, text) for name, text in tags.items() if name in KINDS]


KINDS = {"NELM": "int", "NSW": "int", "IBRION": "int", "EDIFF": "", "EDIFFG": "", "ISPIN": "int", "ISIF": "int",
         "ALGO": "string", "ISMEAR": "int", "SIGMA": "", "NELECT": ""}  # fmt: skip


def kind_of(name):
    return f' type="{KINDS[name]}"' if KINDS[name] else ""


def read_incar():
    pairs = (line.split("=", 1) for line in Path("INCAR").read_text().splitlines() if "=" in line)
    return {name.strip(): text.strip() for name, text in pairs}


def read_poscar():
    lines = Path("POSCAR").read_text().splitlines()
    lattice = [[float(lines[1]) * float(word) for word in line.split()[:3]] for line in lines[2:5]]
    symbols, counts = lines[5].split(), [int(word) for word in lines[6].split()]
    fractions = [[float(word) for word in line.split()[:3]] for line in lines[8 : 8 + sum(counts)]]
    return lattice, symbols, counts, fractions


def volume(lattice):
    (a, b, c), (d, e, f), (g, h, i) = lattice
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def write_poscar(name, lattice, symbols, counts, fractions):
    lines = ["stand-in", "1.0", *(" ".join(f"{x:.16f}" for x in row) for row in lattice)]
    lines += [" ".join(symbols), " ".join(map(str, counts)), "direct"]
    lines += [" ".join(f"{x:.16f}" for x in row) for row in fractions]
    Path(name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
