"""VASP as an oracle: relaxations, then a static calculation, of PBE, PBE+U or r2SCAN.

A calculation is a folder, a step of it a folder inside. Everything needed to go on after a crash is in these
files: a step that converged is never run again, a step that was killed goes on from its CONTCAR, and its ionic
steps before the crash stay among the frames.
"""

import hashlib
import importlib.util
import shlex
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles.folder_lock import locked
from opengnome.oracles.oracle import Calculation, Frames, OracleIdentity, Status
from opengnome.oracles.relaxation import FrameRecorder, Stop, calculation_of, density_stop, failed, frame_stop
from opengnome.oracles.settings import RelaxationSettings, engine_digest
from opengnome.oracles.vasp_folder import (
    clean,
    how_it_ended,
    interrupted_frames,
    last_line,
    note_end,
    prepare_folder,
)
from opengnome.oracles.vasp_inputs import (
    PoscarOrder,
    Step,
    check_potentials,
    level_name,
    plan_steps,
    potentials_root,
    vasp_input,
)
from opengnome.oracles.vasp_outputs import VaspOutput, join_frames, read_output
from opengnome.oracles.vasp_settings import VaspSettings


@dataclass(frozen=True, eq=False)
class _StepResult:
    step: Step
    stop: Stop
    parts: tuple[Frames | None, ...]
    """The frames of the interrupted runs of the step, then those of the last one."""
    output: VaspOutput | None
    """Of the last run; None when there was no time to start one."""
    corrections: tuple[str, ...]
    """What custodian changed on the way."""
    earlier_s: float
    """Wall time in an earlier call."""

    @property
    def last(self) -> Frames | None:
        return next((part for part in reversed(self.parts) if part is not None), None)


class VaspOracle:
    """Relaxes crystals with VASP, one at a time; several processes may share the folder."""

    def __init__(self, settings: VaspSettings | None = None, relaxation: RelaxationSettings | None = None) -> None:
        self.settings = settings or VaspSettings()
        self.relaxation = relaxation or RelaxationSettings()
        _check_relaxation(self.relaxation)
        _check_set_up(self.settings)
        self.identity = OracleIdentity(
            name="vasp",
            code="vasp",
            version="",  # VASP tells it in its output: the identity of every calculation has it
            level=level_name(self.settings),
            settings_digest=engine_digest(self.settings, self.relaxation),
        )

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raises `OracleSetupError` naming every potential that crystals of these elements need and lack."""
        check_potentials((SYMBOLS[number] for number in atomic_numbers), self.settings)

    def folder_of(self, crystal: Crystal) -> Path:
        """Where this crystal is calculated: the same place for the same arrays and the same inputs."""
        described = hashlib.sha256(
            f"{self.identity.level} {self.settings.n_relaxations} {self.relaxation.relax_cell}".encode()
        )
        if self.relaxation.max_steps == 0:
            described.update(b"static")
        for array in (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers):
            described.update(array.tobytes())
        return self.settings.folder / f"{crystal.chemical_system}-{described.hexdigest()[:16]}"

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal, or go on where a killed calculation of it stopped.

        The frames are all ionic steps of the oracle's level in order: n_steps + 1 of them, of which the first
        of each further relaxation and the static calculation repeat a geometry with a new basis or mesh. The
        result is the last. Raises `OracleSetupError` when a potential is missing or VASP cannot be started.
        """
        start = time.monotonic()
        stop = density_stop(crystal, self.relaxation)
        if stop is not None:
            seconds = time.monotonic() - start
            return calculation_of(crystal, stop, None, n_steps=0, fmax=None, seconds=seconds, identity=self.identity)
        check_potentials(crystal.symbols, self.settings)
        folder = self.folder_of(crystal)
        with locked(folder, setting="vasp.folder") as is_ours:
            if not is_ours:
                return failed(
                    crystal, f"another process is calculating this crystal in {folder}", identity=self.identity
                )
            calculation = self._calculate(crystal, folder, start)
            clean(folder, self.settings, calculation.status)
        return calculation

    def _calculate(self, crystal: Crystal, folder: Path, start: float) -> Calculation:
        results: list[_StepResult] = []
        try:
            stop = self._run_steps(crystal, folder, start + self.relaxation.timeout_s, results)
        except OracleSetupError:
            raise
        except Exception as error:  # one crystal's failure is its record: a full disk, a handler's own error
            stop = Stop(Status.FAILED, f"{type(error).__name__}: {error}; see {folder}")
        parts = [part for result in results if result.step.counts for part in result.parts]
        frames = join_frames(parts, crystal.frac_coords)
        versions = [result.output.version for result in results if result.output is not None and result.output.version]
        calculation = calculation_of(
            crystal,
            stop,
            frames,
            n_steps=0 if frames is None else len(frames) - 1,
            fmax=None if frames is None else _largest_force(frames, relax_cell=self.relaxation.relax_cell),
            seconds=time.monotonic() - start + sum(result.earlier_s for result in results),
            identity=replace(self.identity, version=versions[-1] if versions else ""),
        )
        last = results[-1].output if results and calculation.crystal is not None else None
        return replace(
            calculation,
            band_gap=None if last is None else last.band_gap,
            corrections=tuple(line for result in results for line in result.corrections),
        )

    def _run_steps(self, crystal: Crystal, folder: Path, deadline: float, results: list[_StepResult]) -> Stop:
        """Step after step until one does not converge; `results` is filled as they end."""
        order = PoscarOrder.of(crystal)
        geometry, band_gap = crystal, None
        for step in plan_steps(self.settings, max_steps=self.relaxation.max_steps):
            result = self._run_step(step, geometry, band_gap, order, folder / step.name, deadline)
            results.append(result)
            stop = result.stop
            if result.last is not None:
                stop = _last_frame_stop(crystal, result.last, self.relaxation) or stop
            if stop.status is not Status.CONVERGED or result.last is None or result.output is None:
                return replace(stop, reason=f"{step.name}: {stop.reason}; see {folder / step.name}")
            geometry = result.last.crystal(-1, crystal.atomic_numbers)
            band_gap = result.output.band_gap
        return Stop(Status.CONVERGED)

    def _run_step(
        self,
        step: Step,
        geometry: Crystal,
        band_gap: float | None,
        order: PoscarOrder,
        folder: Path,
        deadline: float,
    ) -> _StepResult:
        """Run one step from `geometry`, or take its result from `folder`, or go on with what is there."""
        before = how_it_ended(folder)
        if before.status is Status.CONVERGED:
            output = read_output(folder, order)
            if output.frames is not None:  # else its files are gone, and it is run again
                parts = (*interrupted_frames(folder, step, order), output.frames)
                return _StepResult(step, Stop(Status.CONVERGED), parts, output, before.corrections, before.seconds)
        geometry = prepare_folder(folder, step, geometry, order, before.status)
        earlier = interrupted_frames(folder, step, order)
        begun = time.monotonic()
        inputs = vasp_input(
            order.to_poscar(geometry), step, self.settings, relax_cell=self.relaxation.relax_cell, band_gap=band_gap
        )
        inputs.write_input(str(folder))
        if time.monotonic() > deadline:
            reason = f"{self.relaxation.timeout_s:g} s passed before it was started"
            return _StepResult(step, Stop(Status.TIMED_OUT, reason), earlier, None, (), earlier_s=0.0)
        from opengnome.oracles.vasp_run import run_vasp

        ended = run_vasp(folder, self.settings, deadline=deadline)
        output = read_output(folder, order)
        stop = self._verdict(output, ended.error, timed_out=ended.timed_out, folder=folder)
        note_end(
            folder,
            stop.status,
            stop.reason,
            seconds=time.monotonic() - begun,
            corrections=ended.corrections,
            magnetization=output.magnetization,
        )
        return _StepResult(step, stop, (*earlier, output.frames), output, ended.corrections, earlier_s=0.0)

    def _verdict(self, output: VaspOutput, error: str, *, timed_out: bool, folder: Path) -> Stop:
        """How a run ended; an `error` that custodian leaves is a failure even when the files look well."""
        if timed_out:
            return Stop(Status.TIMED_OUT, f"{self.relaxation.timeout_s:g} s passed")
        converged = output.electronic_converged and output.ionic_converged
        if converged and not error:
            return Stop(Status.CONVERGED)
        if output.is_complete and not converged:
            which = "electronic" if not output.electronic_converged else "ionic"
            return Stop(Status.UNCONVERGED, f"the {which} steps did not converge" + (f": {error}" if error else ""))
        said = last_line(folder)
        return Stop(Status.FAILED, (error or "vasprun.xml is cut off") + (f"; VASP said: {said}" if said else ""))


def _check_relaxation(relaxation: RelaxationSettings) -> None:
    """A setting that would be ignored is refused."""
    for name in ("fmax", "max_steps", "optimizer", "max_step"):
        value, default = getattr(relaxation, name), type(relaxation).model_fields[name].default
        single_point = name == "max_steps" and value == 0
        if value != default and not single_point:
            raise SettingsError(
                f"relaxation.{name} = {value} is of our own minimizers and VASP has its own; leave it out, and set for "
                "instance vasp.incar = {EDIFFG = -0.02}"
            )


def _check_set_up(settings: VaspSettings) -> None:
    """Whatever would fail every crystal, found before anything is written."""
    for package in ("pymatgen", "custodian"):
        if importlib.util.find_spec(package) is None:
            raise OracleSetupError(f"the vasp oracle needs the package {package}: pip install 'opengnome[vasp]'")
    for name, command in (("command", settings.command), ("gamma_command", settings.gamma_command)):
        program = None if command is None else shlex.split(command)[0]
        if program is not None and shutil.which(program) is None:
            raise OracleSetupError(
                f"there is no executable {program!r} on the PATH; load the module of VASP, or set vasp.{name}"
            )
    potentials_root(settings)


def _last_frame_stop(initial: Crystal, frames: Frames, relaxation: RelaxationSettings) -> Stop | None:
    """Why the last frame has left physics, or None."""
    last = (frames.positions, frames.lattices, frames.energies, frames.forces, frames.stresses)
    return frame_stop(initial, FrameRecorder(*(list(values[-1:]) for values in last)), relaxation)


def _largest_force(frames: Frames, *, relax_cell: bool) -> float:
    """The largest generalised force of the last frame (see `relaxation`), eV/Angstrom."""
    forces = np.linalg.norm(frames.forces[-1], axis=1).max()
    if not relax_cell:
        return float(forces)
    volume = abs(np.linalg.det(frames.lattices[-1]))
    virial = np.linalg.norm(volume * frames.stresses[-1], axis=1).max() / frames.forces.shape[1]
    return float(max(forces, virial))
