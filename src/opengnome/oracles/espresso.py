"""Quantum ESPRESSO as an oracle: pw.x computes geometries, our relaxation drives it (doi:10.1088/1361-648X/aa8f79)."""

import copy
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal, digest
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import OracleSetupError
from opengnome.oracles.espresso_pseudopotentials import PseudopotentialFolder, cutoffs_ry
from opengnome.oracles.espresso_settings import EspressoSettings
from opengnome.oracles.oracle import Calculation, OracleIdentity, Status
from opengnome.oracles.relaxation import Stop, calculation_of, relax_with_calculator
from opengnome.oracles.settings import RelaxationSettings, engine_digest

_SMEARING = {"cold": "cold", "gaussian": "gaussian", "methfessel-paxton": "mp"}
LADDER: tuple[dict[str, Any], ...] = (
    {"mixing_beta": 0.2, "mixing_ndim": 12},
    {"mixing_beta": 0.1, "mixing_ndim": 16, "mixing_mode": "local-TF", "electron_maxstep": 400},
    {"diagonalization": "cg"},
)
"""Keywords of the namelist electrons after each failure to converge, on top of those before; they stay for the other
geometries of the crystal. None changes the energy that is converged to."""

_TERMINATE_S = 10.0
"""Seconds between asking pw.x to end and killing it."""


class EspressoOracle:
    """Relaxes crystals with pw.x, one geometry after another; the same limits and frames as any ASE calculator."""

    def __init__(self, settings: EspressoSettings | None = None, relaxation: RelaxationSettings | None = None) -> None:
        self.settings = settings or EspressoSettings()
        given = relaxation or RelaxationSettings()
        self.relaxation = given.model_copy(update={"energy_per_atom_range": self.settings.energy_per_atom_range})
        program = shlex.split(self.settings.command)[0] if self.settings.command.split() else ""
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
            level=level_name(self.settings),
            settings_digest=engine_digest(self.settings, self.relaxation),
        )

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raises `OracleSetupError` naming every element without a pseudopotential or without a cutoff."""
        found = self.folder_of_pseudopotentials.of(SYMBOLS[number] for number in atomic_numbers)
        cutoffs_ry(found, self.settings)

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal; see `relaxation.relax_with_calculator`.

        A calculation that is killed starts again, in a folder of its own. Raises `OracleSetupError` when an element
        has no pseudopotential or no cutoff.
        """
        begun = time.monotonic()
        found = self.folder_of_pseudopotentials.of(crystal.symbols)
        cutoffs = cutoffs_ry(found, self.settings)
        run = PwRun(
            folder=self.settings.folder / f"{crystal.chemical_system}-{digest(crystal)[:16]}",
            deadline=begun + self.relaxation.timeout_s,
            starts=dict.fromkeys(self.settings.magnetic_elements, self.settings.starting_magnetization),
        )
        parameters = {
            "pseudopotentials": {symbol: pseudopotential.path.name for symbol, pseudopotential in found.items()},
            "kpts": k_mesh(crystal, self.settings.k_spacing),
            "input_data": input_data(crystal, cutoffs, self.settings, self.relaxation),
        }
        calculation = relax_with_calculator(
            crystal,
            lambda: run.calculator(self.settings.command, self.folder_of_pseudopotentials.folder, parameters),
            settings=self.relaxation,
            identity=self.identity,
        )
        calculation = self._completed(calculation, run)
        if self.settings.keep == "none" or (self.settings.keep == "failed" and calculation.status is Status.CONVERGED):
            shutil.rmtree(run.folder, ignore_errors=True)
        return calculation

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
        return replace(calculation, oracle=identity, band_gap=gap, corrections=tuple(run.corrections))


class PwError(Exception):
    """What pw.x said before it ended without a result."""


class ElectronsError(PwError):
    """The electrons did not converge: other mixing may help."""


@dataclass
class PwRun:
    """The runs of pw.x for one crystal, and what ASE does not keep of the last one."""

    folder: Path
    """Where they run; a number is appended to tell a second attempt from one that may still be running."""
    deadline: float
    """Of `time.monotonic`, seconds; a pw.x that runs then is ended."""
    starts: Mapping[str, float]
    """Starting magnetization by element, as a fraction of the valence electrons."""
    version: str = ""
    band_gap: float | None = None
    is_out_of_time: bool = False
    corrections: list[str] = field(default_factory=list)
    """What of `LADDER` was used, one line per rung."""

    @property
    def electrons(self) -> dict[str, Any]:
        """The keywords that the rungs used so far add to the namelist electrons."""
        return {key: value for rung in LADDER[: len(self.corrections)] for key, value in rung.items()}

    def calculator(self, command: str, pseudo_dir: Path, parameters: dict[str, Any]) -> Any:
        """ASE's calculator, whose pw.x is started here. Raises `OracleSetupError` when the folder cannot be made."""
        from ase.calculators.espresso import Espresso, EspressoProfile

        self.folder = _new_folder(self.folder)
        calculator = Espresso(
            profile=EspressoProfile(command=command, pseudo_dir=str(pseudo_dir.resolve())),
            directory=self.folder,
            **parameters,
        )
        calculator.template = _template(self)
        return calculator

    def execute(self, arguments: list[str], output: Path, errors: Path) -> None:
        """Run pw.x to its end. Raises `PwError` with its message, or `ElectronsError`, when it has no result."""
        with output.open("w") as out, errors.open("w") as err:
            try:
                process = subprocess.Popen(arguments, cwd=output.parent, stdout=out, stderr=err, start_new_session=True)
            except OSError as error:
                raise OracleSetupError(f"{arguments[0]} cannot be started: {error}; set espresso.command") from error
            try:
                code = process.wait(timeout=max(0.0, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.is_out_of_time = True
                raise PwError("the time limit was reached") from None
            finally:
                _end(process)
        text = output.read_text(errors="replace")
        unconverged = re.search(r"convergence NOT achieved after\s+(\d+) iterations", text)
        if unconverged:
            raise ElectronsError(f"pw.x: the electrons did not converge in {unconverged[1]} iterations")
        problem = _problem(text)
        if problem is None and (code != 0 or "JOB DONE." not in text):
            lines = [
                line.strip() for line in f"{text}\n{errors.read_text(errors='replace')}".splitlines() if line.strip()
            ]
            problem = f"pw.x ended with code {code} after: {lines[-1] if lines else 'no output'}"
        if problem is not None:
            raise PwError(problem)

    def read(self, output: Path) -> dict[str, Any]:
        """Energy, forces and stress of a finished run in ASE's units, from its output."""
        from ase.io import read

        calculator = read(output, index=-1, format="espresso-out").calc  # type: ignore[union-attr]
        match = re.search(r"Program PWSCF\s+v\.(\S+)", output.read_text(errors="replace"))
        self.version = match[1] if match else ""
        self.band_gap = band_gap(calculator)
        return dict(calculator.properties())


def level_name(settings: EspressoSettings) -> str:
    """The level of theory: pseudopotentials, cutoffs, k-points, smearing; further keywords as a digest."""
    family = settings.family or ("" if settings.pseudo_dir is None else settings.pseudo_dir.name)
    cutoff = "sssp" if settings.ecutwfc_ry is None else f"{settings.ecutwfc_ry:g}"
    density = "" if settings.ecutrho_ry is None else f"+{settings.ecutrho_ry:g}"
    parts = ["espresso", family, f"{cutoff}{density}Ry", f"k{settings.k_spacing:g}"]
    parts.append(f"{settings.smearing}{settings.degauss_ry:g}")
    changed = {
        "system": settings.input_data.get("system", {}),
        "pseudopotentials": settings.pseudopotentials,
        "magnetic_elements": sorted(settings.magnetic_elements),
    }
    default = {"system": {}, "pseudopotentials": {}, "magnetic_elements": sorted(EspressoSettings().magnetic_elements)}
    if changed != default:
        parts.append(hashlib.sha256(json.dumps(changed, sort_keys=True, default=str).encode()).hexdigest()[:8])
    return "-".join(parts)


def k_mesh(crystal: Crystal, spacing: float) -> tuple[int, int, int]:
    """Points along each reciprocal vector so that neighbours are at most `spacing` (1/Angstrom, with 2 pi) apart."""
    lengths = np.linalg.norm(2 * np.pi * np.linalg.inv(crystal.lattice), axis=0)
    n1, n2, n3 = np.maximum(1, np.ceil(lengths / spacing - 1e-9)).astype(int).tolist()
    return n1, n2, n3


def input_data(
    crystal: Crystal, cutoffs: tuple[float, float], settings: EspressoSettings, relaxation: RelaxationSettings
) -> dict[str, dict[str, Any]]:
    """The namelists of pw.x for one crystal."""
    has_spin = bool(set(crystal.symbols) & set(settings.magnetic_elements))
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
            atoms = atoms.copy()
            if parameters["input_data"]["system"]["nspin"] == 2:
                # ASE writes what is here as starting_magnetization, which pw.x takes as a fraction
                atoms.set_initial_magnetic_moments([run.starts.get(s, 0.0) for s in atoms.get_chemical_symbols()])
            self.asked = (profile, directory, atoms, parameters, properties)
            self.write_asked()

        def write_asked(self) -> None:
            profile, directory, atoms, parameters, properties = self.asked
            parameters = copy.deepcopy(parameters)
            parameters["input_data"]["electrons"] |= run.electrons
            super().write_input(profile, directory, atoms, parameters, properties)

        def execute(self, directory: Path, profile: Any) -> None:
            folder = Path(directory)
            while True:
                try:
                    arguments = profile.get_command(self.inputname)
                    return run.execute(arguments, folder / self.outputname, folder / self.errorname)
                except ElectronsError as error:
                    if len(run.corrections) == len(LADDER):
                        raise
                    rung = ", ".join(f"{key} = {value}" for key, value in LADDER[len(run.corrections)].items())
                    run.corrections.append(f"{error}: {rung}")
                    self.write_asked()

        def read_results(self, directory: os.PathLike[Any]) -> dict[str, Any]:
            return run.read(Path(directory) / self.outputname)

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
    """A folder that nobody has used: a pw.x of a killed program may still write into an older one."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = stem.with_name(f"{stem.name}.{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder.resolve()
            number += 1
    except OSError as error:
        raise OracleSetupError(f"cannot write to {stem.parent}: {error.strerror}; set espresso.folder") from error
