"""GPAW as an oracle: PAW-DFT relaxations in a row, then a static calculation; PBE, PBE+U or r2SCAN.

A crystal's calculation is a folder. What a killed process leaves there is enough to go on from the last geometry
that was evaluated; a crystal that is finished is read from there and not calculated again.
"""

import gc
import hashlib
import importlib.util
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import ElementsLackDataError, InvalidCrystalError, OracleSetupError
from opengnome.oracles.folder_lock import busy, locked
from opengnome.oracles.gpaw_engine import Engine, GpawEngine, gpaw_version, recording_calculator
from opengnome.oracles.gpaw_parameters import (
    LADDER,
    SMALLER_STEPS,
    Correction,
    Stage,
    gpaw_parameters,
    level_name,
    plan_stages,
)
from opengnome.oracles.gpaw_progress import (
    PROGRESS_FILE,
    Progress,
    StageFrames,
    read_finished,
    read_progress,
    write_finished,
)
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.oracles.gpaw_symmetry import SpaceGroup, symmetrised
from opengnome.oracles.oracle import Calculation, Frames, OracleIdentity, Status
from opengnome.oracles.relaxation import Stop, calculation_of, density_stop, failed, relax_with_calculator
from opengnome.oracles.scratch import is_fault_of_disk, unwritable, writing_to
from opengnome.oracles.settings import DFT_TIMEOUT_S, RelaxationSettings, dft_relaxation, engine_digest

_LEFT_PHYSICS = (Status.EXPLODED, Status.TOO_DENSE, Status.NOT_FINITE)
_CORRECTIONS = {correction.name: correction for correction in (*LADDER, SMALLER_STEPS)}
_FOLDER_SETTING = "gpaw.folder"
_ANY_ENERGY = (-1e6, 1e6)
"""Energies count from free atoms in PBE; with another functional their zero is anywhere (r2SCAN: -1e2 eV/atom)."""


@dataclass
class _Failure:
    """What the engine threw in the last evaluation."""

    error: Exception | None = None

    @property
    def is_convergence(self) -> bool:
        """Whether it is a failure of the self-consistent cycle: GPAW's `ConvergenceError` or one derived from it."""
        return any(base.__name__ == "ConvergenceError" for base in type(self.error).__mro__)


class GpawOracle:
    """Relaxes crystals with GPAW, one at a time; several processes may share the folder."""

    def __init__(
        self,
        settings: GpawSettings | None = None,
        relaxation: RelaxationSettings | None = None,
        *,
        engine: Engine | None = None,
    ) -> None:
        """Without `relaxation` its defaults, with the time limit of `dft_relaxation`. `engine` takes the place of GPAW,
        in tests.

        Raises `OracleSetupError` when GPAW, its data sets, or what else the settings ask for is not there.
        """
        self.settings = settings or GpawSettings()
        self.relaxation = dft_relaxation(relaxation)
        version = gpaw_version() if engine is None else "stand-in"
        self.engine = engine or GpawEngine(self.settings.ranks, self.settings.mpi_command)
        _check_set_up(self.settings)
        self.identity = OracleIdentity(
            name="gpaw",
            code="gpaw",
            version=version,
            level=level_name(self.settings),
            settings_digest=engine_digest(self.settings, self.relaxation),
        )

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raises `ElementsLackDataError` naming every element that GPAW has no data set for."""
        missing = self.engine.missing_elements(sorted({SYMBOLS[number] for number in atomic_numbers}))
        if missing:
            raise ElementsLackDataError(
                f"{_no_data_set(missing)}; put one into a folder on GPAW_SETUP_PATH, or leave these elements out of "
                "the chemistry"
            )

    def folder_of(self, crystal: Crystal) -> Path:
        """Where this crystal is calculated: the same place for the same arrays and the same settings.

        The time limit only ends a calculation and names nothing: asked again with a longer one, a crystal goes on. A
        folder of the time when it did is found too.
        """
        longer = self.relaxation.model_copy(update={"timeout_s": DFT_TIMEOUT_S})
        folder, of_before = (
            self.settings.folder / f"{crystal.chemical_system}-{_digest(settings, crystal)[:16]}"
            for settings in (engine_digest(self.settings, longer), self.identity.settings_digest)
        )
        return of_before if of_before.exists() and not folder.exists() else folder

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal, or go on where a killed calculation of it stopped.

        The frames are all geometries evaluated at the oracle's level, in order: n_steps + 1 of them, of which
        the first of each further relaxation and the static calculation repeat a geometry with a new basis or
        mesh. The first is the input, symmetrised; after a pre-relaxation, by CHGNet or for r2SCAN with PBE+U, it is
        where that ended. The result is the last; `fmax` is that of the last relaxation.

        While another process calculates this crystal, this one waits for it and reads what it left. Raises
        `OracleSetupError` when the folder cannot be written to, MPI does not work, CHGNet cannot be loaded, or the
        other process is not done within the time limit.
        """
        asked = time.monotonic()
        stop = density_stop(crystal, self.relaxation)
        if stop is not None:
            return self._without_frames(crystal, stop, seconds=time.monotonic() - asked)
        missing = self.engine.missing_elements(sorted(set(crystal.symbols)))
        if missing:
            return failed(crystal, _no_data_set(missing), identity=self.identity)
        folder, limit_s = self.folder_of(crystal), self.relaxation.timeout_s
        with locked(folder, setting=_FOLDER_SETTING, wait_s=limit_s) as is_ours:
            if not is_ours:
                raise busy(folder, limit_s)
            calculation = read_finished(folder)
            if calculation is None or calculation.status is Status.FAILED:  # what was in the way may be gone
                calculation = self._calculate(crystal, folder, deadline=asked + limit_s)
            if self.settings.keep == "none" or (
                self.settings.keep == "failed" and calculation.status is Status.CONVERGED
            ):
                shutil.rmtree(folder, ignore_errors=True)
        return calculation

    def _without_frames(self, crystal: Crystal, stop: Stop, *, seconds: float) -> Calculation:
        return calculation_of(crystal, stop, None, n_steps=0, fmax=None, seconds=seconds, identity=self.identity)

    def _calculate(self, crystal: Crystal, folder: Path, *, deadline: float) -> Calculation:
        start = time.monotonic()
        progress, earlier_s = Progress(start=crystal), 0.0
        stages = plan_stages(self.settings, max_steps=self.relaxation.max_steps)
        try:
            progress, group = self._begin(crystal, folder)
            earlier_s = progress.seconds
            run = _Run(self, crystal, group, stages, progress, folder, start=start, deadline=deadline)
            stop = run.all_stages()
        except OracleSetupError:
            raise
        except Exception as error:  # one crystal's failure is its record: no space group
            stop = Stop(Status.FAILED, f"{type(error).__name__}: {error}; see {folder}")
        counted = [s.frames() for stage, s in zip(stages, progress.stages) if stage.counts and len(s)]
        frames = _joined(counted)
        calculation = calculation_of(
            crystal,
            stop,
            frames,
            n_steps=0 if frames is None else len(frames) - 1,
            fmax=progress.fmax if stop.status not in (Status.FAILED, *_LEFT_PHYSICS) else None,
            seconds=earlier_s + time.monotonic() - start,
            identity=self.identity,
        )
        band_gap = None if calculation.energy is None else progress.band_gap
        calculation = replace(calculation, band_gap=band_gap, corrections=tuple(progress.corrections))
        if stop.status is not Status.TIMED_OUT:  # asked again, a crystal goes on
            with writing_to(folder, setting=_FOLDER_SETTING):
                write_finished(folder, calculation)
        return calculation

    def _begin(self, crystal: Crystal, folder: Path) -> tuple[Progress, SpaceGroup]:
        """Where a killed calculation was, or the beginning; and the space group to keep."""
        with writing_to(folder, setting=_FOLDER_SETTING):
            progress = read_progress(folder / PROGRESS_FILE)
        if progress is None:
            start, _ = symmetrised(crystal, symprec=self.settings.symprec)
            progress = Progress(start=start)
            if self.settings.prerelax == "chgnet" and self.relaxation.max_steps > 0:
                progress.start = _prerelaxed(start, self.relaxation, self.settings.symprec, progress.corrections)
        # the group of where DFT starts: CHGNet may have broken the input's, and forces are projected on this one
        _, group = symmetrised(progress.start, symprec=self.settings.symprec)
        return progress, group


class _Run:
    """The stages of one crystal; `progress` is on disk after every evaluation."""

    def __init__(
        self,
        oracle: GpawOracle,
        crystal: Crystal,
        group: SpaceGroup,
        stages: tuple[Stage, ...],
        progress: Progress,
        folder: Path,
        *,
        start: float,
        deadline: float,
    ) -> None:
        self.oracle, self.settings, self.relaxation = oracle, oracle.settings, oracle.relaxation
        self.crystal, self.group, self.stages = crystal, group, stages
        self.progress, self.folder = progress, folder
        self.start, self.deadline, self.earlier_s = start, deadline, progress.seconds
        self.inner: Any = None
        self.n_logs = len(list(folder.glob("*.txt")))

    def all_stages(self) -> Stop:
        """Stage after stage until one does not converge."""
        stop = Stop(Status.CONVERGED)
        for number, stage in enumerate(self.stages):
            if number < self.progress.n_finished:
                continue
            stop = self._stage(number, stage)
            if stop.status is not Status.CONVERGED:
                return replace(stop, reason=f"{stage.name}: {stop.reason}")
            self.progress.n_finished = number + 1
            self._save()
        return stop

    def _stage(self, number: int, stage: Stage) -> Stop:
        """One stage, up the ladder of corrections as far as it takes."""
        if len(self.progress.stages) == number:
            self.progress.stages.append(StageFrames())
        while True:
            failure = _Failure()
            stop = self._attempt(number, stage, failure)
            correction = self._correction(stage, stop, failure)
            if correction is None:
                return stop
            if correction is SMALLER_STEPS:
                self.progress.stages[number] = StageFrames()
            self.progress.ladder.append(correction.name)
            self.progress.corrections.append(f"{stage.name}: {correction.name} after {stop.reason}")
            self._save()

    def _attempt(self, number: int, stage: Stage, failure: _Failure) -> Stop:
        geometry = self.progress.geometry(number)
        frames = self.progress.stages[number]
        n_steps = max(0, len(frames) - 1)
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            return Stop(Status.TIMED_OUT, f"{self.relaxation.timeout_s:g} s passed")
        frames.repeats_last = len(frames) > 0  # it is where this attempt begins
        corrections = tuple(_CORRECTIONS[name] for name in self.progress.ladder)
        try:
            result = relax_with_calculator(
                geometry,
                lambda: self._calculator(geometry, stage, frames, corrections, failure),
                settings=self._relaxation(stage, n_steps, remaining, corrections),
                identity=self.oracle.identity,
                initial=self.crystal,
            )
        finally:
            if self.inner is not None:
                self.oracle.engine.close(self.inner)
                self.inner = None
                gc.collect()  # GPAW's objects hold each other: a process grew by 30 MB with every crystal
        if stage.kind == "relax" or len(self.stages) == 1:
            self.progress.fmax = result.fmax
        if result.status is Status.UNCONVERGED and stage.kind == "static" and len(self.stages) > 1:
            return Stop(Status.CONVERGED)  # its forces on another mesh are reported, not minimised
        if result.status is Status.TIMED_OUT:
            return Stop(result.status, f"{self.relaxation.timeout_s:g} s passed after {len(frames) - 1} steps")
        return Stop(result.status, result.reason)

    def _relaxation(
        self, stage: Stage, n_steps: int, remaining: float, corrections: tuple[Correction, ...]
    ) -> RelaxationSettings:
        """The relaxation's settings for what is left of a stage."""
        max_step = self.relaxation.max_step
        for correction in corrections:
            max_step *= correction.max_step_factor
        changed: dict[str, Any] = {
            "max_steps": 0 if stage.kind == "static" else max(0, self.relaxation.max_steps - n_steps),
            "max_step": max_step,
            "timeout_s": remaining,
        }
        if stage.functional == "r2scan":
            changed["energy_per_atom_range"] = _ANY_ENERGY
        return self.relaxation.model_copy(update=changed)

    def _calculator(
        self,
        geometry: Crystal,
        stage: Stage,
        frames: StageFrames,
        corrections: tuple[Correction, ...],
        failure: _Failure,
    ) -> Any:
        engine = self.oracle.engine
        parameters = gpaw_parameters(geometry, stage, self.settings, corrections)
        self.n_logs += 1
        log = self.folder / f"{self.n_logs:02d}-{stage.name}.txt"
        n_kpoints = self.group.n_kpoints(parameters["kpts"]["size"], gamma=parameters["kpts"]["gamma"])
        with _disk_watched(self.folder):
            self.inner = inner = engine.calculator(parameters, log, n_kpoints=n_kpoints)

        def save() -> None:
            if stage.kind == "static":
                self.progress.band_gap = engine.band_gap(inner)
            self._save()

        return recording_calculator(
            _Watched(inner, failure, self.folder),
            self.group,
            frames,
            with_stress=self.relaxation.relax_cell,
            on_frame=save,
        )

    def _correction(self, stage: Stage, stop: Stop, failure: _Failure) -> Correction | None:
        """What to change after a failure, or None when there is nothing (left) to change."""
        if len(self.progress.ladder) >= self.settings.max_corrections:
            return None
        if stop.status is Status.FAILED and failure.is_convergence:
            return next((c for c in LADDER if c.name not in self.progress.ladder), None)
        moved = len(self.progress.stages[-1]) > 1
        if stop.status in _LEFT_PHYSICS and stage.kind == "relax" and moved:
            return SMALLER_STEPS if SMALLER_STEPS.name not in self.progress.ladder else None
        return None

    def _save(self) -> None:
        self.progress.seconds = self.earlier_s + time.monotonic() - self.start
        with writing_to(self.folder, setting=_FOLDER_SETTING):
            self.progress.write(self.folder / PROGRESS_FILE)


class _Watched:
    """A calculator whose errors are noted as they pass; those of the disk its files are on become one of the set-up."""

    def __init__(self, inner: Any, failure: _Failure, folder: Path) -> None:
        self._inner, self._failure, self._folder = inner, failure, folder

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*arguments: Any) -> Any:
            try:
                with _disk_watched(self._folder):
                    return method(*arguments)
            except Exception as error:
                self._failure.error = error
                raise

        return call


@contextmanager
def _disk_watched(folder: Path) -> Iterator[None]:
    """The engine writes a log: a disk that is full is not the crystal's failure."""
    try:
        yield
    except Exception as error:
        if is_fault_of_disk(error):
            raise unwritable(folder, error, setting=_FOLDER_SETTING) from error
        raise


def _no_data_set(symbols: list[str]) -> str:
    return f"there is no PAW data set of PBE for {', '.join(symbols)}"


def _digest(settings: str, crystal: Crystal) -> str:
    """SHA-256 of a digest of settings and the arrays of a crystal, hexadecimal."""
    described = hashlib.sha256(settings.encode())
    for array in (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers):
        described.update(array.tobytes())
    return described.hexdigest()


def _joined(parts: Iterable[Frames]) -> Frames | None:
    """The frames one after another."""
    present = list(parts)
    if not present:
        return None
    names = ("positions", "lattices", "energies", "forces", "stresses")
    return Frames(*(np.concatenate([getattr(part, name) for part in present]) for name in names))


def _check_set_up(settings: GpawSettings) -> None:
    """Whatever would fail every crystal, found before anything is written."""
    if settings.prerelax == "chgnet" and importlib.util.find_spec("chgnet") is None:
        raise OracleSetupError('prerelax = "chgnet" needs the package chgnet: pip install chgnet')
    program = (shlex.split(settings.mpi_command) or [""])[0]
    if settings.ranks > 1 and shutil.which(program) is None:
        raise OracleSetupError(
            f"ranks = {settings.ranks} needs MPI, but there is no executable {program!r} on the PATH; set "
            "gpaw.mpi_command"
        )


def _prerelaxed(crystal: Crystal, relaxation: RelaxationSettings, symprec: float, log: list[str]) -> Crystal:
    """`crystal` relaxed with CHGNet and symmetrised again; as it was when CHGNet fails, which goes to `log`."""
    from opengnome.oracles.chgnet import ChgnetOracle

    result = ChgnetOracle(relaxation).relax(crystal)
    if result.status is not Status.CONVERGED or result.crystal is None:
        log.append(f"chgnet: no pre-relaxation after {result.status.value}: {result.reason}")
        return crystal
    try:
        return symmetrised(result.crystal, symprec=symprec)[0]
    except InvalidCrystalError as error:
        log.append(f"chgnet: no pre-relaxation: {error}")
        return crystal
