"""What VASP answered: every ionic step of a run in our units and the order of the input crystal."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.interop import from_pymatgen
from opengnome.errors import InvalidCrystalError
from opengnome.oracles.oracle import Frames
from opengnome.oracles.vasp_inputs import PoscarOrder
from opengnome.units import GPA_IN_EV_PER_A3

KBAR_IN_EV_PER_A3 = 0.1 * GPA_IN_EV_PER_A3
"""VASP writes stress in kilobar, positive under compression."""


NUMERICS: tuple[str, ...] = ("ENMAX", "PREC", "LREAL", "ISMEAR", "SIGMA", "KSPACING")
"""What custodian's corrections may change of what a run computes."""


@dataclass(frozen=True, eq=False)
class VaspOutput:
    """One run of VASP, read from its folder."""

    frames: Frames | None
    """Every complete ionic step, atoms and lattice vectors in the order of the input crystal; energies are
    those extrapolated to zero smearing, "energy(sigma->0)", as the Materials Project takes them."""
    is_complete: bool
    """Whether vasprun.xml is whole, that is VASP ended by itself."""
    electronic_converged: bool
    """Whether the electronic steps of the last ionic step converged."""
    ionic_converged: bool
    """Whether the relaxation ended before its last allowed step, and not because of a STOPCAR; True for a static
    calculation."""
    band_gap: float | None
    """From the eigenvalues on the mesh of the run, eV; 0 for a metal."""
    magnetization: float | None
    """Total moment of the cell, Bohr magnetons; None without spin."""
    site_moments: np.ndarray | None
    """Moments of the atoms in the POSCAR's order, shape (n_atoms,), Bohr magnetons; None without spin."""
    numerics: tuple[Any, ...]
    """Values of `NUMERICS` in this run: energies and forces of runs with equal ones go together."""
    version: str
    """VASP's version; empty when nothing could be read."""


def read_output(folder: Path, order: PoscarOrder, *, only_converged: bool = False) -> VaspOutput:
    """Read vasprun.xml and OUTCAR of `folder`, whatever is left of them; never raises because of the files.

    With `only_converged` the frames lack the ionic steps whose electrons did not converge.
    """
    run, is_complete = _read_vasprun(folder / "vasprun.xml")
    if run is None:
        return VaspOutput(None, False, False, False, None, None, None, (), "")
    steps = [step for step in run.ionic_steps if _is_whole(step)]
    electronic_converged = is_complete and bool(steps) and bool(run.converged_electronic)
    if steps and _is_cut_short(steps[-1], run.parameters):
        steps, electronic_converged = steps[:-1], False
    if only_converged:
        steps = [step for step in steps if len(step["electronic_steps"]) < run.parameters.get("NELM", 60)]
    outcar = _read_outcar(folder / "OUTCAR")
    has_spin = run.parameters.get("ISPIN", 1) == 2
    return VaspOutput(
        frames=_frames(steps, order),
        is_complete=is_complete and bool(steps),
        electronic_converged=electronic_converged,
        ionic_converged=is_complete and bool(run.converged_ionic) and not outcar.was_stopped,
        band_gap=_band_gap(run) if is_complete else None,
        magnetization=outcar.magnetization if is_complete and has_spin else None,
        site_moments=outcar.site_moments if is_complete and has_spin else None,
        numerics=tuple(str(run.parameters.get(tag)) for tag in NUMERICS),
        version=str(run.vasp_version),
    )


def join_frames(parts: Sequence[Frames | None], frac_coords: np.ndarray) -> Frames | None:
    """The frames one after another, None left out.

    VASP wraps atoms into the cell. Here every atom is put at the image nearest (in fractional coordinates) to
    where it was in the frame before, the first one to `frac_coords`, shape (n_atoms, 3).
    """
    present = [part for part in parts if part is not None]
    if not present:
        return None
    names = ("positions", "lattices", "energies", "forces", "stresses")
    joined = {name: np.concatenate([getattr(part, name) for part in present]) for name in names}
    previous = frac_coords
    for positions, lattice in zip(joined["positions"], joined["lattices"], strict=True):
        fractions = np.linalg.solve(lattice.T, positions.T).T
        previous = fractions - np.round(fractions - previous)
        positions[:] = previous @ lattice
    return Frames(**joined)


def read_contcar(folder: Path, order: PoscarOrder, crystal: Crystal) -> Crystal | None:
    """The geometry VASP would have evaluated next, in the order of `crystal`; None unless CONTCAR is whole."""
    from pymatgen.io.vasp.inputs import Poscar

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of POSCARs without velocities and the like
            found = from_pymatgen(Poscar.from_file(folder / "CONTCAR", check_for_potcar=False).structure)
    except Exception:  # a file cut anywhere: pymatgen's parser has no error of its own
        return None
    if not np.array_equal(found.atomic_numbers, crystal.atomic_numbers[order.atoms]):
        return None
    try:
        return Crystal(
            found.lattice[order.vectors], found.frac_coords[order.back][:, order.vectors], crystal.atomic_numbers
        )
    except InvalidCrystalError:
        return None


def _read_vasprun(path: Path) -> tuple[Any, bool]:
    """Pymatgen's `Vasprun` (None when there is nothing in it) and whether the file is whole."""
    from pymatgen.io.vasp.outputs import Vasprun

    for whole in (True, False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the file is malformed, or that the run is unconverged
                run = Vasprun(
                    str(path), parse_dos=False, parse_eigen=True, parse_potcar_file=False, exception_on_bad_xml=whole
                )
                run.ionic_steps, run.parameters, run.vasp_version  # noqa: B018 (absent when the header is cut)
                return run, whole
        except Exception:  # lxml, pymatgen and missing keys: a file cut anywhere fails in many ways
            continue
    return None, False


def _is_whole(step: dict[str, Any]) -> bool:
    """Whether an ionic step of a cut file has everything; stress is missing with ISIF = 0 only."""
    return step.get("structure") is not None and "forces" in step and bool(step.get("electronic_steps"))


def _is_cut_short(step: dict[str, Any], parameters: dict[str, Any]) -> bool:
    """Whether a STOPCAR ended the electronic steps: neither NELM of them nor a change below EDIFF.

    Forces and energy of such a step are not self-consistent, and nothing else in the files says so.
    """
    electronic = step["electronic_steps"]
    if len(electronic) >= parameters.get("NELM", 60) or len(electronic) < 2:
        return False
    change = electronic[-1].get("e_fr_energy", np.nan) - electronic[-2].get("e_fr_energy", np.nan)
    return bool(abs(change) > parameters.get("EDIFF", 1e-4))


def _frames(steps: Sequence[dict[str, Any]], order: PoscarOrder) -> Frames | None:
    if not steps:
        return None
    back = order.back
    stresses = [np.array(step.get("stress", np.full((3, 3), np.nan)), dtype=np.float64) for step in steps]
    return Frames(
        positions=np.array([step["structure"].cart_coords[back] for step in steps]),
        lattices=np.array([step["structure"].lattice.matrix[order.vectors] for step in steps]),
        energies=np.array([_energy(step) for step in steps]),
        forces=np.array([np.array(step["forces"], dtype=np.float64)[back] for step in steps]),
        stresses=np.array([-KBAR_IN_EV_PER_A3 * (stress + stress.T) / 2 for stress in stresses]),
    )


def _energy(step: dict[str, Any]) -> float:
    """Energy at zero smearing, eV.

    The ionic step's own e_0_energy is 0 or wrong in many versions of VASP; its free energy is right, and so is
    the difference of the two in the last electronic step (vasp.at forum, topic 16942).
    """
    last = step["electronic_steps"][-1]
    return float(step["e_fr_energy"] + last["e_0_energy"] - last["e_fr_energy"])


def _band_gap(run: Any) -> float | None:
    if not run.eigenvalues:
        return None
    return max(0.0, float(run.eigenvalue_band_properties[0]))


@dataclass(frozen=True, eq=False)
class _Outcar:
    magnetization: float | None = None
    site_moments: np.ndarray | None = None
    was_stopped: bool = False


def _read_outcar(path: Path) -> _Outcar:
    """The last moments, and whether a STOPCAR ended the run, which vasprun.xml does not tell.

    pymatgen's `Outcar` reads all the rest too, which takes seconds.
    """
    if not path.is_file():
        return _Outcar()
    moment, was_stopped = None, False
    rows: list[float] = []
    with path.open(errors="replace") as lines:
        for line in lines:
            if line.lstrip().startswith("number of electron "):
                moment = line
            elif line.startswith(" magnetization (x)"):
                rows = _moments_of(lines)
            was_stopped = was_stopped or "stop encountered!" in line  # "soft stop ..." and "hard stop ..."
    words = [] if moment is None else moment.partition("magnetization")[2].split()
    return _Outcar(float(words[0]) if words else None, np.array(rows) if rows else None, was_stopped)


def _moments_of(lines: Iterator[str]) -> list[float]:
    """The last column of a table of OUTCAR, which begins with a blank line, names of the columns and a rule."""
    for line in lines:
        if line.startswith("----"):
            break
    rows = []
    for line in lines:
        words = line.split()
        if not words or not words[0].isdigit():
            break
        rows.append(float(words[-1]))
    return rows
