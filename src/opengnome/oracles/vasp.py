"""VASP as an oracle: relaxations, then a static calculation, of PBE, PBE+U or r2SCAN.

A calculation is a folder, a step of it a folder inside. Everything needed to go on after a crash is in these
files: a step that converged is never run again, a step that was killed goes on from its CONTCAR, and its ionic
steps before the crash stay among the frames.
"""

import errno
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
from opengnome.oracles.folder_lock import busy, locked
from opengnome.oracles.oracle import Calculation, Frames, OracleIdentity, Status
from opengnome.oracles.relaxation import FrameRecorder, Stop, calculation_of, density_stop, frame_stop
from opengnome.oracles.scratch import is_fault_of_disk, unwritable
from opengnome.oracles.settings import RelaxationSettings, dft_relaxation, engine_digest
from opengnome.oracles.tether import no_space
from opengnome.oracles.vasp_folder import (
    clean,
    earlier_actions,
    earlier_corrections,
    earlier_frames,
    how_it_ended,
    last_line,
    note_begin,
    note_end,
    prepare_folder,
    seconds_spent,
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
from opengnome.oracles.vasp_settings import R2SCAN_ENERGY_RANGE, VaspSettings


@dataclass(frozen=True, eq=False)
class _StepResult:
    step: Step
    stop: Stop
    parts: tuple[Frames | None, ...]
    """The frames of the runs before the last one, interrupted or corrected, then those of the last one."""
    output: VaspOutput | None
    """Of the last run; None when there was no time to start one."""
    corrections: tuple[str, ...]
    """What custodian changed on the way."""
    earlier_s: float
    """Wall time in earlier calls."""

    @property
    def last(self) -> Frames | None:
        return next((part for part in reversed(self.parts) if part is not None), None)


class VaspOracle:
    """Relaxes crystals with VASP, one at a time; several processes may share the folder."""

    def __init__(self, settings: VaspSettings | None = None, relaxation: RelaxationSettings | None = None) -> None:
        self.settings = settings or VaspSettings()
        self.relaxation = dft_relaxation(relaxation)
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
        """Raises `ElementsLackDataError` naming every potential that crystals of these elements need and lack."""
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

        The frames are all ionic steps of the oracle's level in order, those before a crash of the program or a
        correction by custodian too: n_steps + 1 of them. The first of each further relaxation and the static
        calculation repeat a geometry with a new basis or mesh, and a corrected run may begin again at the geometry
        of the one before. Frame 0 is the input, unless the electrons never converged there (then custodian went on
        from where VASP had got, or changed the cell, which `corrections` tells) or the functional is r2SCAN (then
        it is where the PBE+U relaxation ended). The result is the last frame.

        While another process calculates this crystal, this one waits for it and reads what it left. Raises
        `OracleSetupError` when a potential is missing, VASP cannot be started, the disk is full, or the other process
        is not done within the time limit.
        """
        asked = time.monotonic()
        stop = density_stop(crystal, self.relaxation)
        if stop is not None:
            return self._without_frames(crystal, stop, seconds=time.monotonic() - asked)
        check_potentials(crystal.symbols, self.settings)
        folder = self.folder_of(crystal)
        limit_s = self.relaxation.timeout_s
        with locked(folder, setting="vasp.folder", wait_s=limit_s) as is_ours:
            if not is_ours:
                raise busy(folder, limit_s)
            calculation = self._calculate(crystal, folder, deadline=asked + limit_s)
            clean(folder, self.settings, calculation.status)
        return calculation

    def _without_frames(self, crystal: Crystal, stop: Stop, *, seconds: float) -> Calculation:
        return calculation_of(crystal, stop, None, n_steps=0, fmax=None, seconds=seconds, identity=self.identity)

    def _calculate(self, crystal: Crystal, folder: Path, *, deadline: float) -> Calculation:
        start = time.monotonic()
        results: list[_StepResult] = []
        try:
            stop = self._run_steps(crystal, folder, deadline, results)
        except OracleSetupError:
            raise
        except Exception as error:  # one crystal's failure is its record, for instance a handler's own error
            if is_fault_of_disk(error):
                raise unwritable(folder, error, setting="vasp.folder") from error
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
        geometry, before = crystal, None
        for step in plan_steps(self.settings, max_steps=self.relaxation.max_steps):
            result = self._run_step(step, geometry, before, order, folder / step.name, deadline)
            results.append(result)
            stop = result.stop
            if result.last is not None:
                stop = _last_frame_stop(crystal, result.last, _limits(self.relaxation, step)) or stop
            if stop.status is not Status.CONVERGED or result.last is None or result.output is None:
                return replace(stop, reason=f"{step.name}: {stop.reason}; see {folder / step.name}")
            geometry = result.last.crystal(-1, crystal.atomic_numbers)
            before = result.output
        return Stop(Status.CONVERGED)

    def _run_step(
        self,
        step: Step,
        geometry: Crystal,
        output_before: VaspOutput | None,
        order: PoscarOrder,
        folder: Path,
        deadline: float,
    ) -> _StepResult:
        """Run one step from `geometry`, or take its result from `folder`, or go on with what is there.

        `output_before` is of the step before, whose band gap and moments this one may begin with.
        """
        before = how_it_ended(folder)
        if before.status is Status.CONVERGED:
            output = read_output(folder, order)
            if output.frames is not None:  # else its files are gone, and it is run again
                parts = (*earlier_frames(folder, step, order, output), output.frames)
                return _StepResult(step, Stop(Status.CONVERGED), parts, output, before.corrections, before.seconds)
        earlier_s = seconds_spent(folder, before)
        geometry = prepare_folder(folder, step, geometry, order, before.status)
        note_begin(folder, earlier_s=earlier_s)
        begun = time.monotonic()
        inputs = vasp_input(
            order.to_poscar(geometry),
            step,
            self.settings,
            relax_cell=self.relaxation.relax_cell,
            band_gap=None if output_before is None else output_before.band_gap,
            moments=None if output_before is None else output_before.site_moments,
        )
        inputs.write_input(str(folder))
        if time.monotonic() > deadline:
            reason = f"{self.relaxation.timeout_s:g} s passed before it was started"
            parts = earlier_frames(folder, step, order, None)
            return _StepResult(
                step, Stop(Status.TIMED_OUT, reason), parts, None, earlier_corrections(folder), earlier_s
            )
        from opengnome.oracles.vasp_run import change_inputs, run_vasp

        change_inputs(folder, earlier_actions(folder))
        ended = run_vasp(folder, self.settings, deadline=deadline)
        output = read_output(folder, order)
        stop = self._verdict(output, ended.error, timed_out=ended.timed_out, folder=folder)
        corrections = (*earlier_corrections(folder), *ended.corrections)
        note_end(
            folder,
            stop.status,
            stop.reason,
            seconds=earlier_s + time.monotonic() - begun,
            corrections=corrections,
            magnetization=output.magnetization,
        )
        parts = earlier_frames(folder, step, order, output)
        return _StepResult(step, stop, (*parts, output.frames), output, corrections, earlier_s)

    def _verdict(self, output: VaspOutput, error: str, *, timed_out: bool, folder: Path) -> Stop:
        """How a run ended; an `error` that custodian leaves is a failure even when the files look well.

        Raises `OracleSetupError` when VASP had no space to write to.
        """
        if timed_out:
            return Stop(Status.TIMED_OUT, f"{self.relaxation.timeout_s:g} s passed")
        converged = output.electronic_converged and output.ionic_converged
        if converged and not error:
            return Stop(Status.CONVERGED)
        if said := no_space(folder / "std_err.txt", folder / "vasp.out"):
            raise unwritable(folder, OSError(errno.ENOSPC, said), setting="vasp.folder")
        if output.is_complete and not converged:
            which = "electronic" if not output.electronic_converged else "ionic"
            # Of a single point there is no other geometry whose energy could be better: nothing may learn from it.
            single = self.relaxation.max_steps == 0
            return Stop(
                Status.FAILED if single else Status.UNCONVERGED,
                f"the {which} steps did not converge" + (f": {error}" if error else ""),
            )
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


def _limits(relaxation: RelaxationSettings, step: Step) -> RelaxationSettings:
    """The limits of a step: those of `relaxation`, but `R2SCAN_ENERGY_RANGE` where no other range was set."""
    name = "energy_per_atom_range"
    default = RelaxationSettings.model_fields[name].default
    if step.functional != "r2scan" or relaxation.energy_per_atom_range != default:
        return relaxation
    return relaxation.model_copy(update={name: R2SCAN_ENERGY_RANGE})


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
