"""Relaxing a crystal, cell and positions together, with any ASE calculator.

The generalised forces are those of ASE's `FrechetCellFilter`: forces on the atoms, and the virial
conjugate to the logarithm of the deformation divided by the number of atoms. The minimizer is BFGS
(doi:10.1093/imamat/6.1.76) or FIRE (doi:10.1103/PhysRevLett.97.170201) as ASE has them.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.geometry import minimum_distance
from opengnome.crystals.interop import to_ase
from opengnome.errors import InvalidCrystalError, OracleSetupError
from opengnome.oracles.oracle import Calculation, Frames, OracleIdentity, Status
from opengnome.oracles.scratch import is_fault_of_disk
from opengnome.oracles.settings import RelaxationSettings

_WITH_RESULT = (Status.CONVERGED, Status.UNCONVERGED, Status.TIMED_OUT)


@dataclass(frozen=True)
class Stop:
    """What ended a relaxation."""

    status: Status
    reason: str = ""


@dataclass
class FrameRecorder:
    """The frames evaluated so far."""

    positions: list[np.ndarray] = field(default_factory=list)
    lattices: list[np.ndarray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    forces: list[np.ndarray] = field(default_factory=list)
    stresses: list[np.ndarray] = field(default_factory=list)

    def record(self, atoms: Any, *, with_stress: bool) -> None:
        """Append the current geometry of an ASE `Atoms`; its results are cached there already."""
        n_atoms = len(atoms)
        stress = atoms.get_stress(voigt=False) if with_stress else np.full((3, 3), np.nan)
        self.energies.append(float(atoms.get_potential_energy()))
        self.forces.append(np.array(atoms.get_forces(), dtype=np.float64).reshape(n_atoms, 3))
        self.stresses.append(np.array(stress, dtype=np.float64))
        self.positions.append(np.array(atoms.get_positions(), dtype=np.float64))
        self.lattices.append(np.array(atoms.cell.array, dtype=np.float64))

    def frames(self) -> Frames | None:
        if not self.energies:
            return None
        stacked = (self.positions, self.lattices, self.energies, self.forces, self.stresses)
        return Frames(*(np.array(values, dtype=np.float64) for values in stacked))


def relax_with_calculator(
    crystal: Crystal,
    make_calculator: Callable[[], Any],
    *,
    settings: RelaxationSettings,
    identity: OracleIdentity,
    initial: Crystal | None = None,
) -> Calculation:
    """Relax `crystal` with the ASE calculator that `make_calculator` gives; record every frame.

    When this is a later part of a calculation, `initial` is where that began: the limits of the volume ratio count
    from it. Any exception of the engine becomes status FAILED with its type and message as the reason; frames
    evaluated before it are kept. Raises `OracleSetupError` when the engine does, or cannot write to its disk.
    """
    start = time.monotonic()
    initial = initial or crystal
    recorder = FrameRecorder()
    fmax: float | None = None
    try:
        stop = density_stop(crystal, settings)
        if stop is None:
            deadline = start + settings.timeout_s
            with _without_logm_warnings():
                stop, fmax = _minimize(crystal, make_calculator(), settings, recorder, deadline, initial)
    except OracleSetupError:
        raise
    except Exception as error:  # one crystal's failure is its record, whatever the engine threw
        if is_fault_of_disk(error):
            raise OracleSetupError(
                f"the engine cannot write its files: {error}; make room there and run it again"
            ) from error
        stop = Stop(Status.FAILED, f"{type(error).__name__}: {error}")
    frames = recorder.frames()
    n_frames = 0 if frames is None else len(frames)
    return calculation_of(
        initial,
        stop,
        frames,
        n_steps=max(0, n_frames - 1),
        fmax=fmax,
        seconds=time.monotonic() - start,
        identity=identity,
    )


def failed(crystal: Crystal, reason: str, *, identity: OracleIdentity, seconds: float = 0.0) -> Calculation:
    """The record of a crystal for which there is no answer."""
    stop = Stop(Status.FAILED, reason)
    return calculation_of(crystal, stop, None, n_steps=0, fmax=None, seconds=seconds, identity=identity)


def calculation_of(
    initial: Crystal,
    stop: Stop,
    frames: Frames | None,
    *,
    n_steps: int,
    fmax: float | None,
    seconds: float,
    identity: OracleIdentity,
) -> Calculation:
    """The record of a relaxation: the last frame is its result where the status has one.

    `fmax` in eV/Angstrom and wall `seconds` are recorded as they are given.
    """
    has_result = stop.status in _WITH_RESULT and frames is not None
    last = frames if has_result else None
    return Calculation(
        status=stop.status,
        reason=stop.reason,
        initial=initial,
        crystal=None if last is None else last.crystal(-1, initial.atomic_numbers),
        energy=None if last is None else float(last.energies[-1]),
        forces=None if last is None else last.forces[-1],
        stress=None if last is None or np.isnan(last.stresses[-1]).any() else last.stresses[-1],
        frames=frames,
        n_steps=n_steps,
        fmax=fmax,
        seconds=seconds,
        oracle=identity,
    )


def _minimize(
    crystal: Crystal,
    calculator: Any,
    settings: RelaxationSettings,
    recorder: FrameRecorder,
    deadline: float,
    initial: Crystal,
) -> tuple[Stop, float | None]:
    """Step until something ends it; the largest generalised force (None unless finite) comes along."""
    atoms, target, optimizer = _set_up(crystal, calculator, settings)
    fmax = None
    # irun yields after the first evaluation and after every step, before the next geometry is evaluated
    for converged in optimizer.irun(fmax=settings.fmax, steps=settings.max_steps):
        recorder.record(atoms, with_stress=settings.relax_cell)
        stop = frame_stop(initial, recorder, settings)
        if stop is not None:
            return stop, None
        fmax = float(np.linalg.norm(target.get_forces(), axis=1).max())
        if converged:
            return Stop(Status.CONVERGED), fmax
        n_steps = len(recorder.energies) - 1
        if time.monotonic() > deadline and n_steps < settings.max_steps:  # else no step was left to take
            reason = f"{settings.timeout_s:g} s passed after {n_steps} steps"
            return Stop(Status.TIMED_OUT, reason), fmax
    reason = f"fmax is {fmax:.3g} eV/A after {settings.max_steps} steps, must be below {settings.fmax:g}"
    return Stop(Status.UNCONVERGED, reason), fmax


def _set_up(crystal: Crystal, calculator: Any, settings: RelaxationSettings) -> tuple[Any, Any, Any]:
    """The atoms, what the optimizer sees of them (with the cell or without), and the optimizer."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    atoms = to_ase(crystal)
    atoms.calc = calculator
    target = FrechetCellFilter(atoms) if settings.relax_cell else atoms
    optimizer_class = {"bfgs": BFGS, "fire": FIRE}[settings.optimizer]
    return atoms, target, optimizer_class(target, logfile=None, maxstep=settings.max_step)


@contextmanager
def _without_logm_warnings() -> Iterator[None]:
    """SciPy warns at an error of 2e-13 in the logarithm of the deformation; 1e-6 would be good enough."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        yield


def density_stop(crystal: Crystal, settings: RelaxationSettings) -> Stop | None:
    """TOO_DENSE when atoms are too close or too many; looked at before the engine sees the crystal."""
    if crystal.volume_per_atom < settings.min_volume_per_atom:
        return Stop(
            Status.TOO_DENSE,
            f"{crystal.volume_per_atom:.3g} A^3 per atom, must be at least {settings.min_volume_per_atom:g}",
        )
    distance = minimum_distance(crystal)
    if distance < settings.min_distance:
        return Stop(
            Status.TOO_DENSE,
            f"two atoms are {distance:.3g} A apart, must be at least {settings.min_distance:g}",
        )
    return None


def frame_stop(initial: Crystal, recorder: FrameRecorder, settings: RelaxationSettings) -> Stop | None:
    """Why the last frame ends the relaxation, or None; volumes count from `initial`."""
    energy, forces, stress = recorder.energies[-1], recorder.forces[-1], recorder.stresses[-1]
    stress_finite = np.isfinite(stress).all() or not settings.relax_cell
    if not (np.isfinite(energy) and np.isfinite(forces).all() and stress_finite):
        return Stop(Status.NOT_FINITE, f"the engine gave a value that is not finite: energy {energy:g} eV")
    lattice, positions = recorder.lattices[-1], recorder.positions[-1]
    try:
        frame = Crystal(lattice, np.linalg.solve(lattice.T, positions.T).T, initial.atomic_numbers)
        return _range_stop(initial, frame, energy, forces, settings) or density_stop(frame, settings)
    except (InvalidCrystalError, np.linalg.LinAlgError) as error:
        return Stop(Status.EXPLODED, f"the cell is no longer one: {error}")


def _range_stop(
    initial: Crystal, frame: Crystal, energy: float, forces: np.ndarray, settings: RelaxationSettings
) -> Stop | None:
    quantities = (
        (
            "volume / initial volume",
            frame.volume / initial.volume,
            settings.min_volume_ratio,
            settings.max_volume_ratio,
        ),
        ("energy per atom in eV", energy / frame.n_atoms, *settings.energy_per_atom_range),
        ("largest force in eV/A", float(np.linalg.norm(forces, axis=1).max()), 0.0, settings.max_force),
    )
    for name, value, low, high in quantities:
        if not low <= value <= high:
            return Stop(Status.EXPLODED, f"{name} is {value:.4g}, outside {low:g}..{high:g}")
    return None
