"""GPAW itself: an ASE calculator of one crystal, seen through the crystal's space group.

Mortensen et al., J. Chem. Phys. 160, 092503 (2024), doi:10.1063/5.0182685.
"""

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from opengnome.errors import OracleSetupError
from opengnome.oracles.gpaw_processes import check_mpi, end_processes, is_parallel, parallel_calculator
from opengnome.oracles.gpaw_progress import StageFrames
from opengnome.oracles.gpaw_symmetry import SpaceGroup

INSTALL = (
    "pip install 'opengnome[gpaw]', which compiles: it needs a C++ compiler, libxc and a BLAS "
    "(Debian: g++ libxc-dev libopenblas-dev)"
)


class Engine(Protocol):
    """What makes calculators. The one of GPAW is `GpawEngine`."""

    def missing_elements(self, symbols: list[str]) -> list[str]:
        """Those of `symbols` the engine has no data set for."""
        ...

    def calculator(self, parameters: dict[str, Any], log: Path, *, n_kpoints: int = 1) -> Any:
        """An ASE calculator; at least `n_kpoints` are not related by symmetry."""
        ...

    def close(self, calculator: Any) -> None:
        """Give back what `calculator` holds; it is not used again."""
        ...

    def band_gap(self, calculator: Any) -> float | None:
        """Band gap of the geometry that was evaluated last, eV; None where the engine gives none."""
        ...


@dataclass(frozen=True)
class GpawEngine:
    """GPAW in this process, or in MPI processes that this one starts for each calculator and talks to by pipes."""

    ranks: int = 1
    """MPI processes at most (see `n_processes`); 1: none, GPAW runs in this process."""
    mpi_command: str = "mpiexec"
    """How they are started, followed by ``-n`` and their number."""

    def missing_elements(self, symbols: list[str]) -> list[str]:
        from gpaw import setup_paths

        def is_there(symbol: str) -> bool:
            names = (f"{symbol}.PBE", f"{symbol}.PBE.gz")
            return any((Path(folder) / name).exists() for folder in setup_paths for name in names)

        return [symbol for symbol in symbols if not is_there(symbol)]

    def calculator(self, parameters: dict[str, Any], log: Path, *, n_kpoints: int = 1) -> Any:
        n_kpoints *= 2 if parameters.get("spinpol") else 1  # either spin has its own
        n_processes, division = self.n_processes(n_kpoints)
        if n_processes > 1:
            check_mpi(self.ranks, self.mpi_command)
            parameters = parameters | ({"parallel": division} if division else {})
            return parallel_calculator(parameters, log, n_processes=n_processes, mpi_command=self.mpi_command)
        from gpaw import GPAW

        return GPAW(**parameters, txt=str(log))

    def n_processes(self, n_kpoints: int) -> tuple[int, dict[str, int]]:
        """How many processes, and how GPAW divides the work; empty: as it likes.

        A GPAW that cannot divide bands or plane waves stops with an AssertionError when there are more processes than
        k-points, or a number between which it cannot divide them evenly: so there are not.
        """
        if self.ranks == 1:
            return 1, {}
        if divides_bands():
            return self.ranks, {}
        n_processes = min(self.ranks, n_kpoints)
        return n_processes, {"kpt": n_processes, "domain": 1, "band": 1}

    def close(self, calculator: Any) -> None:
        if is_parallel(calculator):
            end_processes(calculator)

    def band_gap(self, calculator: Any) -> float | None:
        if is_parallel(calculator):
            calculator = calculator.backend()  # calls a method in all processes
        n_kpoints, n_spins = len(calculator.get_ibz_k_points()), calculator.get_number_of_spins()
        levels = [[calculator.get_eigenvalues(kpt=k, spin=spin) for k in range(n_kpoints)] for spin in range(n_spins)]
        return gap_of_levels(np.array(levels), calculator.get_fermi_level())


def divides_bands() -> bool:
    """Whether GPAW divides more than k-points between processes, for which it has to be built with ScaLAPACK."""
    from gpaw.utilities import compiled_with_sl

    return bool(compiled_with_sl())


def gap_of_levels(levels: np.ndarray, fermi_level: float) -> float | None:
    """Lowest empty minus highest filled level, eV, of `levels` (n_spins, n_kpoints, n_bands), eV.

    0 when a band has levels on either side of the Fermi level; None when there is no empty level to look at.
    """
    is_empty = levels > fermi_level
    crosses = is_empty.any(axis=1) & ~is_empty.all(axis=1)  # (n_spins, n_bands)
    if crosses.any():
        return 0.0
    if is_empty.all() or not is_empty.any():
        return None
    return float(levels[is_empty].min() - levels[~is_empty].max())


def gpaw_version() -> str:
    """Versions of GPAW and of its data sets.

    Raises `OracleSetupError` when either is not installed.
    """
    if importlib.util.find_spec("gpaw") is None:
        raise OracleSetupError(f"the gpaw oracle needs the package gpaw: {INSTALL}")
    try:
        return f"{importlib.metadata.version('gpaw')}, data sets {importlib.metadata.version('gpaw-data')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise OracleSetupError(f"the gpaw oracle needs PAW data sets: pip install gpaw-data ({error})") from error


def recording_calculator(
    inner: Any,
    group: SpaceGroup,
    stage: StageFrames,
    *,
    with_stress: bool,
    on_frame: Callable[[], None],
) -> Any:
    """An ASE calculator that evaluates with `inner`, projects on the space group, and appends to `stage`.

    `on_frame` is called after every evaluation. A value that is not finite is passed on but not appended.
    """
    from ase.calculators.calculator import Calculator, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class _Recording(Calculator):
        implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE's own declaration)

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            lattice, positions = np.array(atoms.cell.array), np.array(atoms.get_positions())
            shifted = atoms.copy()
            shifted.positions += group.origin @ lattice
            with _without_grid_warnings():
                energy = float(inner.get_potential_energy(shifted))
            forces = group.symmetrised_forces(np.array(inner.get_forces(shifted), dtype=np.float64), lattice)
            self.results = {"energy": energy, "free_energy": energy, "forces": forces}
            stress = np.full((3, 3), np.nan)
            if with_stress:
                stress = group.symmetrised_stress(_full_stress(inner, shifted), lattice)
                self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
            if np.isfinite(energy) and np.isfinite(forces).all() and (np.isfinite(stress).all() or not with_stress):
                stage.append(positions=positions, lattices=lattice, energies=energy, forces=forces, stresses=stress)
                on_frame()

    return _Recording()


@contextmanager
def _without_grid_warnings() -> Iterator[None]:
    """GPAW warns when it takes more grid points than it first wanted, so that glides and screws map them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initial realspace grid|Using symmetrized grid", UserWarning)
        yield


def _full_stress(inner: Any, atoms: Any) -> np.ndarray:
    from ase.stress import voigt_6_to_full_3x3_stress

    stress: np.ndarray = voigt_6_to_full_3x3_stress(np.array(inner.get_stress(atoms), dtype=np.float64))
    return stress
