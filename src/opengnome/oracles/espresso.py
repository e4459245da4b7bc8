"""Quantum ESPRESSO as an oracle: pw.x computes geometries, our relaxation drives it (doi:10.1088/1361-648X/aa8f79).

A crystal's calculation is a folder with what pw.x has answered so far (`espresso_evaluations`) and a folder for each
time it was asked for, in which pw.x runs.
"""

import copy
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal, digest
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles.dioxygen import has_dioxygen
from opengnome.oracles.espresso_evaluations import Evaluation, Evaluations
from opengnome.oracles.espresso_pseudopotentials import Pseudopotential, PseudopotentialFolder, cutoffs_ry
from opengnome.oracles.espresso_settings import PHYSICAL_KEYWORDS, EspressoSettings
from opengnome.oracles.folder_lock import busy, locked
from opengnome.oracles.oracle import Calculation, OracleIdentity, Status
from opengnome.oracles.relaxation import Stop, calculation_of, density_stop, relax_with_calculator
from opengnome.oracles.scratch import is_fault_of_disk, unwritable
from opengnome.oracles.settings import RelaxationSettings, dft_relaxation, engine_digest
from opengnome.oracles.tether import CANNOT_START, PROCESS_FILE, end_orphan, no_space, note_process, tethered

_SMEARING = {"cold": "cold", "gaussian": "gaussian", "methfessel-paxton": "mp"}
LADDER: tuple[dict[str, Any], ...] = (
    {"mixing_beta": 0.2, "mixing_ndim": 12},
    {"mixing_beta": 0.1, "mixing_ndim": 16, "mixing_mode": "local-TF", "electron_maxstep": 400},
    {"diagonalization": "cg"},
)
"""Keywords of the namelist electrons after each failure to converge, on top of those before; they stay for the other
geometries of the crystal. None changes the energy that is converged to."""

EVALUATIONS_FILE = "evaluations.jsonl"
_STARTING_MAGNETIZATION: float = EspressoSettings.model_fields["starting_magnetization"].default
_FOLDER_SETTING = "espresso.folder"
_TERMINATE_S = 10.0
"""Seconds between asking pw.x to end and killing it."""


class EspressoOracle:
    """Relaxes crystals with pw.x, one geometry after another; the same limits and frames as any ASE calculator.

    Several processes may share the folder.
    """

    def __init__(self, settings: EspressoSettings | None = None, relaxation: RelaxationSettings | None = None) -> None:
        self.settings = settings or EspressoSettings()
        self.relaxation = _with_own_energy_range(dft_relaxation(relaxation), self.settings)
        program = shlex.split(self.settings.command)[0]
        if shutil.which(program) is None:
            raise OracleSetupError(
                f"there is no executable {program!r} on the PATH; install Quantum ESPRESSO (Debian: quantum-espresso), "
                "load its module, or set espresso.command"
            )
        self.folder_of_pseudopotentials = PseudopotentialFolder(self.settings)
        self.identity = OracleIdentity(
            name="espresso",
            code="pw.x",
            version="",  # pw.x tells it in its output: the identity of every calculation has it
            level=level_name(
                self.settings, self.folder_of_pseudopotentials.functional, self.folder_of_pseudopotentials.family
            ),
            settings_digest=engine_digest(self.settings, self.relaxation),
        )

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raises `ElementsLackDataError` naming every element without a pseudopotential or without a cutoff, and
        `OracleSetupError` when the folder has several files of an element or a damaged one.
        """
        found = self.folder_of_pseudopotentials.of(SYMBOLS[number] for number in atomic_numbers)
        cutoffs_ry(found, self.settings)

    def folder_of(self, crystal: Crystal) -> Path:
        """Where this crystal is calculated: the same place for the same arrays and the same level of theory."""
        described = hashlib.sha256(f"{self.identity.level} {self.relaxation.relax_cell} {digest(crystal)}".encode())
        return self.settings.folder / f"{crystal.chemical_system}-{described.hexdigest()[:16]}"

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal, or go on where a killed calculation of it stopped; see `relaxation.relax_with_calculator`.

        While another process calculates this crystal, this one waits for it and takes what it left. Raises
        `OracleSetupError` when an element has no pseudopotential or no cutoff, pw.x cannot be started, the disk is
        full, or the other process is not done within the time limit.
        """
        asked = time.monotonic()
        stop = density_stop(crystal, self.relaxation)
        if stop is not None:
            return self._without_frames(crystal, stop, seconds=time.monotonic() - asked)
        found = self.folder_of_pseudopotentials.of(crystal.symbols)
        cutoffs = cutoffs_ry(found, self.settings)
        folder, limit_s = self.folder_of(crystal), self.relaxation.timeout_s
        with locked(folder, setting=_FOLDER_SETTING, wait_s=limit_s) as is_ours:
            if not is_ours:
                raise busy(folder, limit_s)
            calculation = self._calculate(crystal, found, cutoffs, folder, deadline=asked + limit_s)
            if self.settings.keep == "none" or (
                self.settings.keep == "failed" and calculation.status is Status.CONVERGED
            ):
                shutil.rmtree(folder, ignore_errors=True)
        return calculation

    def _without_frames(self, crystal: Crystal, stop: Stop, *, seconds: float) -> Calculation:
        return calculation_of(crystal, stop, None, n_steps=0, fmax=None, seconds=seconds, identity=self.identity)

    def _calculate(
        self,
        crystal: Crystal,
        found: Mapping[str, Pseudopotential],
        cutoffs: tuple[float, float],
        folder: Path,
        *,
        deadline: float,
    ) -> Calculation:
        for earlier in folder.glob("run.*"):
            end_orphan(earlier)
        parameters = {
            "pseudopotentials": {symbol: pseudopotential.path.name for symbol, pseudopotential in found.items()},
            "kpts": k_mesh(crystal, self.settings.k_spacing),
            "input_data": input_data(crystal, cutoffs, self.settings, self.relaxation),
        }
        run = PwRun(
            folder=folder / "run",
            deadline=deadline,
            starts=dict.fromkeys(spin_carriers(crystal, self.settings), self.settings.starting_magnetization),
            evaluations=Evaluations(folder / EVALUATIONS_FILE, _inputs_digest(parameters, found, self.settings)),
        )
        calculation = relax_with_calculator(
            crystal,
            lambda: run.calculator(self.settings.command, self.folder_of_pseudopotentials.folder, parameters),
            settings=self.relaxation,
            identity=self.identity,
        )
        with suppress(OSError):
            run.folder.rmdir()  # if nothing had to run
        return self._completed(calculation, run)

    def _completed(self, calculation: Calculation, run: "PwRun") -> Calculation:
        """With what only pw.x knows; a pw.x that was ended at the time limit is no failure but out of time."""
        identity = replace(calculation.oracle, version=run.version)
        if run.is_out_of_time:
            n_steps = calculation.n_steps
            stop = Stop(Status.TIMED_OUT, f"{self.relaxation.timeout_s:g} s passed after {n_steps} steps")
            calculation = calculation_of(
                calculation.initial,
                stop,
                calculation.frames,
                n_steps=n_steps,
                fmax=None,
                seconds=calculation.seconds,
                identity=identity,
            )
        elif calculation.status is Status.FAILED:
            calculation = replace(calculation, reason=f"{calculation.reason}; see {run.folder}")
        gap = None if calculation.crystal is None else run.band_gap
        return replace(
            calculation,
            oracle=identity,
            band_gap=gap,
            corrections=tuple(run.corrections),
            seconds=calculation.seconds + run.earlier_s,
        )


class PwError(Exception):
    """What pw.x said before it ended without a result."""


class ElectronsError(PwError):
    """The electrons did not converge: other mixing may help."""


@dataclass
class PwRun:
    """The runs of pw.x for one crystal, and what ASE does not keep of the last one."""

    folder: Path
    """Where they run; a number is appended: a pw.x on another machine may still write into an older folder."""
    deadline: float
    """Of `time.monotonic`, seconds; a pw.x that runs then is ended."""
    starts: Mapping[str, float]
    """Starting magnetization by element, as a fraction of the valence electrons."""
    evaluations: Evaluations
    """What was answered before, and is answered now."""
    version: str = ""
    band_gap: float | None = None
    is_out_of_time: bool = False
    corrections: list[str] = field(default_factory=list)
    """What of `LADDER` was used, one line per rung."""
    earlier_s: float = 0.0
    """Wall time of the evaluations that were not run again."""

    @property
    def electrons(self) -> dict[str, Any]:
        """The keywords that the rungs used so far add to the namelist electrons."""
        return {key: value for rung in LADDER[: len(self.corrections)] for key, value in rung.items()}

    def calculator(self, command: str, pseudo_dir: Path, parameters: dict[str, Any]) -> Any:
        """ASE's calculator, whose pw.x is started here."""
        from ase.calculators.espresso import Espresso, EspressoProfile

        with self.writing():
            self.folder = _new_folder(self.folder)
        calculator = Espresso(
            profile=EspressoProfile(command=command, pseudo_dir=str(pseudo_dir.resolve())),
            directory=self.folder,
            **parameters,
        )
        calculator.template = _template(self)
        return calculator

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around code that writes to the folder. Raises `OracleSetupError` when the disk is to blame for an error."""
        try:
            yield
        except OSError as error:
            if not is_fault_of_disk(error):
                raise
            raise unwritable(self.folder, error, setting=_FOLDER_SETTING) from error

    def execute(self, arguments: list[str], output: Path, errors: Path) -> None:
        """Run pw.x to its end, or to the end of this process.

        Raises `PwError` with its message, or `ElectronsError`, when it has no result, and `OracleSetupError` when it
        cannot be started or had no space to write to.
        """
        if shutil.which(arguments[0]) is None:  # it was there when the oracle was made
            raise OracleSetupError(
                f"there is no executable {arguments[0]!r} on the PATH any more; set espresso.command"
            )
        code = self._run(tethered(arguments), output, errors)
        text, complaints = output.read_text(errors="replace"), errors.read_text(errors="replace")
        if CANNOT_START in complaints:
            raise OracleSetupError(f"{complaints.strip()}; set espresso.command")
        unconverged = re.search(r"convergence NOT achieved after\s+(\d+) iterations", text)
        if unconverged:
            raise ElectronsError(f"pw.x: the electrons did not converge in {unconverged[1]} iterations")
        problem = _problem(text)
        if problem is None and (code != 0 or "JOB DONE." not in text):
            lines = [line.strip() for line in f"{text}\n{complaints}".splitlines() if line.strip()]
            problem = f"pw.x ended with code {code} after: {lines[-1] if lines else 'no output'}"
        if problem is not None:
            if said := no_space(errors, output):
                raise unwritable(self.folder, OSError(errno.ENOSPC, said), setting=_FOLDER_SETTING)
            raise PwError(problem)

    def _run(self, arguments: list[str], output: Path, errors: Path) -> int:
        """The exit code. Raises `PwError` at the time limit."""
        with self.writing(), output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(arguments, cwd=output.parent, stdout=out, stderr=err, start_new_session=True)
            try:
                note_process(output.parent, process.pid)
                return process.wait(timeout=max(0.0, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.is_out_of_time = True
                raise PwError("the time limit was reached") from None
            finally:
                _end(process)
                (output.parent / PROCESS_FILE).unlink(missing_ok=True)

    def recall(self, atoms: Any) -> Evaluation | None:
        """What is known of the geometry of an ASE `Atoms` from an earlier run."""
        known = self.evaluations.find(atoms.get_positions(), atoms.cell.array)
        if known is not None:
            self.version, self.band_gap, self.corrections = known.version, known.band_gap, list(known.corrections)
            self.earlier_s += known.seconds
        return known

    def read(self, output: Path, atoms: Any, *, seconds: float) -> dict[str, Any]:
        """Energy, forces and stress of a finished run in ASE's units, from its output; written down before."""
        from ase.io import read

        calculator = read(output, index=-1, format="espresso-out").calc  # type: ignore[union-attr]
        match = re.search(r"Program PWSCF\s+v\.(\S+)", output.read_text(errors="replace"))
        self.version = match[1] if match else ""
        self.band_gap = band_gap(calculator)
        results = dict(calculator.properties())
        with self.writing():
            self.evaluations.add(
                atoms.get_positions(),
                atoms.cell.array,
                results,
                band_gap=self.band_gap,
                version=self.version,
                corrections=self.corrections,
                seconds=seconds,
            )
        return results


def level_name(settings: EspressoSettings, functional: str, family: str) -> str:
    """The level of theory: functional, pseudopotentials, cutoffs, k-points, smearing; what else changes energies as a
    digest.

    `functional` is that of the pseudopotentials, which a keyword input_dft replaces, and `family` their name
    (`PseudopotentialFolder`).
    """
    system = settings.input_data.get("system", {})
    named = next((str(value).lower() for key, value in system.items() if key.lower() == "input_dft"), functional)
    cutoff = "sssp" if settings.ecutwfc_ry is None else f"{settings.ecutwfc_ry:g}"
    density = "" if settings.ecutrho_ry is None else f"+{settings.ecutrho_ry:g}"
    parts = ["espresso", named, family, f"{cutoff}{density}Ry", f"k{settings.k_spacing:g}"]
    parts.append(f"{settings.smearing}{settings.degauss_ry:g}")
    if settings.magnetic_elements:
        parts.append("o2spin")  # energies of O2 before it had spin are another level
    changed, default = _described(settings), _described(EspressoSettings())
    if changed != default:
        parts.append(hashlib.sha256(json.dumps(changed, sort_keys=True, default=str).encode()).hexdigest()[:8])
    return "-".join(parts)


def _described(settings: EspressoSettings) -> dict[str, Any]:
    """What changes energies and has no place of its own in the name of the level."""
    others = {**settings.input_data.get("control", {}), **settings.input_data.get("electrons", {})}
    described: dict[str, Any] = {
        "system": settings.input_data.get("system", {}),
        "pseudopotentials": settings.pseudopotentials,
        "magnetic_elements": sorted(settings.magnetic_elements),
    }
    physical = {key: value for key, value in others.items() if key.lower() in PHYSICAL_KEYWORDS}
    if physical:
        described["fields"] = physical
    # where the moments start decides in which minimum they end
    if settings.magnetic_elements and settings.starting_magnetization != _STARTING_MAGNETIZATION:
        described["starting_magnetization"] = settings.starting_magnetization
    return described


def _inputs_digest(
    parameters: Mapping[str, Any], found: Mapping[str, Pseudopotential], settings: EspressoSettings
) -> str:
    """Of all that pw.x is told besides the geometry, but for the time limit, and of the pseudopotentials' content."""
    data = copy.deepcopy(parameters["input_data"])
    del data["control"]["max_seconds"]
    contents = {symbol: hashlib.sha256(one.path.read_bytes()).hexdigest() for symbol, one in found.items()}
    described = [
        data,
        parameters["kpts"],
        contents,
        sorted(settings.magnetic_elements),
        settings.starting_magnetization,
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _with_own_energy_range(relaxation: RelaxationSettings, settings: EspressoSettings) -> RelaxationSettings:
    """With `energy_per_atom_range` of the section espresso; another one, which would be ignored, is refused."""
    name = "energy_per_atom_range"
    if getattr(relaxation, name) not in (RelaxationSettings.model_fields[name].default, settings.energy_per_atom_range):
        raise SettingsError(
            f"relaxation.{name} = {getattr(relaxation, name)} does not hold for pw.x, whose energies count from "
            f"separate electrons and cores; leave it out, and set espresso.{name}"
        )
    return relaxation.model_copy(update={name: settings.energy_per_atom_range})


def k_mesh(crystal: Crystal, spacing: float) -> tuple[int, int, int]:
    """Points along each reciprocal vector so that neighbours are at most `spacing` (1/Angstrom, with 2 pi) apart."""
    lengths = np.linalg.norm(2 * np.pi * np.linalg.inv(crystal.lattice), axis=0)
    n1, n2, n3 = np.maximum(1, np.ceil(lengths / spacing - 1e-9)).astype(int).tolist()
    return n1, n2, n3


def spin_carriers(crystal: Crystal, settings: EspressoSettings) -> frozenset[str]:
    """The elements of a crystal that start with a moment: magnetic ones, and oxygen of O2 and superoxides.

    None where `magnetic_elements` is empty: everything is calculated without spin then.
    """
    if not settings.magnetic_elements:
        return frozenset()
    carriers = frozenset(settings.magnetic_elements) | ({"O"} if has_dioxygen(crystal) else set())
    return carriers & frozenset(crystal.symbols)


def input_data(
    crystal: Crystal, cutoffs: tuple[float, float], settings: EspressoSettings, relaxation: RelaxationSettings
) -> dict[str, dict[str, Any]]:
    """The namelists of pw.x for one crystal."""
    has_spin = bool(spin_carriers(crystal, settings))
    data: dict[str, dict[str, Any]] = {
        "control": {
            "calculation": "scf",
            "tprnfor": True,  # else ASE would run pw.x once for the energy and again for the rest
            "tstress": relaxation.relax_cell,
            "outdir": ".",
            "prefix": "pwscf",
            "disk_io": "none",
            "verbosity": "high",  # the eigenvalues of more than 100 k-points too
            "max_seconds": relaxation.timeout_s,  # ends a pw.x whose driver was killed
        },
        "system": {
            "ecutwfc": cutoffs[0],
            "ecutrho": cutoffs[1],
            "occupations": "smearing",
            "smearing": _SMEARING[settings.smearing],
            "degauss": settings.degauss_ry,
            "nspin": 2 if has_spin else 1,
        },
        "electrons": {
            "conv_thr": settings.conv_thr_ry_per_atom * crystal.n_atoms,
            "electron_maxstep": 200,
            "mixing_beta": 0.4,
        },
    }
    for namelist, keywords in settings.input_data.items():
        data[namelist] |= keywords
    return data


def band_gap(calculator: Any) -> float | None:
    """Lowest level above the Fermi energy minus highest below, eV, on the k-points of an ASE DFT calculator.

    0 for a metal: the number of levels below the Fermi energy differs between k-points. None without empty levels.
    """
    points, fermi = getattr(calculator, "kpts", None), calculator.get_fermi_level()
    if not points or fermi is None:
        return None
    levels = [np.asarray(point.eps_n) for point in points]
    n_below: dict[int, set[int]] = {}
    for point, energies in zip(points, levels, strict=True):
        n_below.setdefault(point.s, set()).add(int((energies <= fermi).sum()))
    if any(len(counts) > 1 for counts in n_below.values()):
        return 0.0
    every = np.concatenate(levels)
    if (every <= fermi).all() or (every > fermi).all():
        return None
    return float(every[every > fermi].min() - every[every <= fermi].max())


def _template(run: PwRun) -> Any:
    """ASE's template of pw.x with the starting moments, time limit and error messages of `run`."""
    from ase.calculators.espresso import EspressoTemplate

    class _PwTemplate(EspressoTemplate):
        def write_input(
            self, profile: Any, directory: Path, atoms: Any, parameters: dict[str, Any], properties: Any
        ) -> None:
            self.known = run.recall(atoms)
            atoms = atoms.copy()
            if parameters["input_data"]["system"]["nspin"] == 2:
                # ASE writes what is here as starting_magnetization, which pw.x takes as a fraction
                atoms.set_initial_magnetic_moments([run.starts.get(s, 0.0) for s in atoms.get_chemical_symbols()])
            self.asked = (profile, directory, atoms, parameters, properties)
            self.begun = time.monotonic()
            if self.known is None:
                self.write_asked()

        def write_asked(self) -> None:
            profile, directory, atoms, parameters, properties = self.asked
            parameters = copy.deepcopy(parameters)
            parameters["input_data"]["electrons"] |= run.electrons
            with run.writing():
                super().write_input(profile, directory, atoms, parameters, properties)

        def execute(self, directory: Path, profile: Any) -> None:
            folder = Path(directory)
            while self.known is None:
                try:
                    arguments = profile.get_command(self.inputname)
                    run.execute(arguments, folder / self.outputname, folder / self.errorname)
                    break
                except ElectronsError as error:
                    if len(run.corrections) == len(LADDER):
                        raise
                    rung = ", ".join(f"{key} = {value}" for key, value in LADDER[len(run.corrections)].items())
                    run.corrections.append(f"{error}: {rung}")
                    self.write_asked()

        def read_results(self, directory: os.PathLike[Any]) -> dict[str, Any]:
            if self.known is not None:
                return self.known.properties()
            return run.read(Path(directory) / self.outputname, self.asked[2], seconds=time.monotonic() - self.begun)

    return _PwTemplate()


def _problem(output: str) -> str | None:
    """What pw.x says went wrong, or None."""
    match = re.search(r"Error in routine\s+(\S+)\s+\(\s*(-?\d+)\s*\):\s*\n\s*(.+)", output)
    return f"pw.x: {match[3].strip()} (routine {match[1]}, {match[2]})" if match else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End pw.x and all its ranks, if it runs: politely, then not."""
    for number, patience_s in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience_s)


def _new_folder(stem: Path) -> Path:
    """A folder beside `stem` that nobody has used."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = stem.with_name(f"{stem.name}.{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder.resolve()
        number += 1
