"""What VASP is asked to do: the steps of a calculation and the input files of each.

The inputs are pymatgen's MPRelaxSet, MPStaticSet, MPScanRelaxSet and MPScanStaticSet
(doi:10.1016/j.commatsci.2012.10.028, doi:10.1103/PhysRevMaterials.6.013801); the differences of GNoME are those
of doi:10.1038/s41586-023-06735-9, Methods. Every start is ferromagnetic: all moments of the input sets are
positive.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.interop import from_pymatgen, to_pymatgen
from opengnome.crystals.symmetry import space_group_number
from opengnome.errors import ElementsLackDataError, OracleSetupError
from opengnome.oracles.hexagonal import is_of_hexagonal_family
from opengnome.oracles.vasp_settings import VaspSettings

NEWER_POTENTIALS: frozenset[str] = frozenset({"Li", "Na", "Mg", "Ge", "Ga"})
"""Elements whose potentials are of the release 5.4 with preset gnome: Li_sv of 2004, Na_pv of 2006, Mg_pv and
Ge_d of 2007, Ga_d of 2010 in place of those of 2000 and 2001. The symbol, hence the number of valence electrons,
is the same."""

OLD_RELEASE, NEW_RELEASE = "PBE", "PBE_54"
"""Releases of potentials by pymatgen's names: that of the Materials Project's PBE, and that of its r2SCAN."""

METAL_SMEARING: dict[str, Any] = {"ISMEAR": 2, "SIGMA": 0.2}
"""What custodian's IncorrectSmearingHandler changes in the relaxation of a metal, which it runs again: the tetrahedron
method of MPRelaxSet has wrong forces there."""

NO_DENSITIES: dict[str, Any] = dict.fromkeys(("LAECHG", "LCHARG", "LELF", "LVHAR", "LVTOT", "LWAVE"), False)
"""Files that the input sets write and nothing here reads, hundreds of MB per crystal; `incar` may ask for them."""

_NEW_SYMBOLS = {"W": "W_sv", "Yb": "Yb_3"}
"""Where MPScanRelaxSet's potentials have another name than MPRelaxSet's (W_pv is not in release 5.4)."""

_COMPRESSED = ("", ".gz", ".bz2", ".Z")


@dataclass(frozen=True)
class Step:
    """One run of VASP."""

    name: str
    """Name of its folder."""
    kind: Literal["relax", "static"]
    functional: Literal["pbe", "pbe+u", "r2scan"]
    counts: bool
    """Whether its energies are of the oracle's level: not those of the PBE+U relaxation before r2SCAN."""


def plan_steps(settings: VaspSettings, *, max_steps: int = 1) -> tuple[Step, ...]:
    """The runs of VASP for one crystal, in order; without steps (`max_steps` 0) the static calculation alone."""
    if max_steps == 0:
        return (Step("static", "static", settings.functional, counts=True),)
    if settings.functional == "r2scan":
        relaxations = [Step("pbe-relax", "relax", "pbe+u", counts=False), Step("relax", "relax", "r2scan", counts=True)]
    else:
        relaxations = [
            Step(f"relax{number}", "relax", settings.functional, counts=True)
            for number in range(1, settings.n_relaxations + 1)
        ]
    static = [Step("static", "static", settings.functional, counts=True)] if settings.static else []
    return (*relaxations, *static)


def level_name(settings: VaspSettings) -> str:
    """The level of theory, e.g. "vasp-pbe+u-gnome"; whatever else changes energies is appended as a digest."""
    parts = ["vasp", settings.functional, settings.preset]
    if not settings.static:
        parts.append("nostatic")
    if settings.physical_incar:
        text = json.dumps(settings.physical_incar, sort_keys=True, default=str)
        parts.append(f"incar-{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    return "-".join(parts)


@dataclass(frozen=True, eq=False)
class PoscarOrder:
    """How a crystal is described to VASP, which wants equal elements together and a right-handed cell.

    Only the description changes: atoms and lattice vectors are permuted, positions in space stay.
    """

    atoms: np.ndarray
    """Line i of the POSCAR is atom ``atoms[i]`` of the crystal; shape (n_atoms,)."""
    vectors: np.ndarray
    """Lattice vector k of the POSCAR is vector ``vectors[k]`` of the crystal; shape (3,)."""

    @classmethod
    def of(cls, crystal: Crystal) -> "PoscarOrder":
        """Elements by falling metallic character as pymatgen sorts them, atoms of one element as they are."""
        from pymatgen.core import Element

        elements = [Element(symbol) for symbol in crystal.symbols]
        atoms = np.array(sorted(range(crystal.n_atoms), key=lambda index: (elements[index], index)))
        left_handed = np.linalg.det(crystal.lattice) < 0
        return cls(atoms, np.array([1, 0, 2] if left_handed else [0, 1, 2]))

    def to_poscar(self, crystal: Crystal) -> Crystal:
        """The crystal in the POSCAR's order."""
        return Crystal(
            crystal.lattice[self.vectors],
            crystal.frac_coords[self.atoms][:, self.vectors],
            crystal.atomic_numbers[self.atoms],
        )

    @cached_property
    def back(self) -> np.ndarray:
        """Atom j of the crystal is line ``back[j]`` of the POSCAR; a swap of vectors is its own inverse."""
        return np.argsort(self.atoms)


def vasp_input(
    crystal: Crystal,
    step: Step,
    settings: VaspSettings,
    *,
    relax_cell: bool,
    band_gap: float | None,
    moments: np.ndarray | None = None,
) -> Any:
    """The pymatgen `VaspInput` (INCAR, KPOINTS or None, POSCAR, POTCAR) of one step.

    `crystal` is in the POSCAR's order. `band_gap` in eV is that of the step before: it sets the k-point spacing and
    the smearing of r2SCAN (None: as for a metal, with Gaussian smearing), and the second relaxation of what the first
    one found to be a metal has the smearing that custodian gave the first. `moments`, Bohr magnetons, are those with
    which the step before ended, shape (n_atoms,): a static calculation and the r2SCAN steps start with them, as the
    Materials Project's do; the relaxations start anew with the moments of the input set.
    Raises `OracleSetupError` when a potential is missing.
    """
    from pymatgen.io.vasp.inputs import Potcar, VaspInput
    from pymatgen.io.vasp.sets import BadInputSetWarning

    releases = potential_releases(step, settings)
    with warnings.catch_warnings():
        # pymatgen advises against what the protocols themselves prescribe (PBE of release 5.4 before r2SCAN, the
        # tetrahedron method for metals, Yb_2) and says so for every crystal
        warnings.filterwarnings("ignore", category=BadInputSetWarning)
        warnings.filterwarnings("ignore", message="Co without an oxidation state")
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # pymatgen's use of spglib
        structure = to_pymatgen(crystal)
        if moments is not None and len(moments) == crystal.n_atoms and _goes_on_with_moments(step):
            structure.add_site_property("magmom", moments.tolist())
        inputs = _input_set(structure, step, settings, relax_cell=relax_cell, band_gap=band_gap)
        symbols = inputs.potcar_symbols
        potcar = Potcar(functional=NEW_RELEASE if step.functional == "r2scan" else OLD_RELEASE)
        potcar.extend(_read_potential(symbol, releases, settings) for symbol in symbols)
        return VaspInput(incar=inputs.incar, kpoints=inputs.kpoints, poscar=inputs.poscar, potcar=potcar)


def _input_set(structure: Any, step: Step, settings: VaspSettings, *, relax_cell: bool, band_gap: float | None) -> Any:
    from pymatgen.io.vasp.sets import MPRelaxSet, MPScanRelaxSet, MPScanStaticSet, MPStaticSet

    incar = NO_DENSITIES | settings.incar
    options: dict[str, Any] = {"sort_structure": False, "user_incar_settings": incar}
    if step.kind == "relax" and not relax_cell:
        incar["ISIF"] = 2
    if step.functional == "r2scan":
        scan = MPScanStaticSet if step.kind == "static" else MPScanRelaxSet
        return scan(structure, bandgap=band_gap, **options)
    if step.kind == "relax" and band_gap == 0.0:
        options["user_incar_settings"] = METAL_SMEARING | incar
    if step.functional == "pbe":
        options["user_incar_settings"]["LDAU"] = False
    if not step.counts:
        options["user_potcar_functional"] = NEW_RELEASE  # the potentials of the r2SCAN steps that follow
        options["user_potcar_settings"] = _NEW_SYMBOLS
    options["force_gamma"] = settings.preset == "gnome" and is_hexagonal(from_pymatgen(structure))
    pbe = MPStaticSet if step.kind == "static" else MPRelaxSet
    return pbe(structure, **options)


def _goes_on_with_moments(step: Step) -> bool:
    return step.kind == "static" or step.functional == "r2scan"


def is_hexagonal(crystal: Crystal) -> bool:
    """Whether the space group is of the hexagonal family, where a mesh beside Gamma breaks the symmetry.

    pymatgen looks at the angles and lengths of the cell as it is given, which misses rhombohedral cells.
    """
    return is_of_hexagonal_family(space_group_number(crystal))


def potential_releases(step: Step, settings: VaspSettings) -> dict[str, str]:
    """The release of each element's potential (pymatgen's name) in a step, by element symbol."""
    if step.functional == "r2scan" or not step.counts:
        return dict.fromkeys(SYMBOLS, NEW_RELEASE)
    newer = NEWER_POTENTIALS if settings.preset == "gnome" else frozenset()
    return {symbol: NEW_RELEASE if symbol in newer else OLD_RELEASE for symbol in SYMBOLS}


def potential_symbols(step: Step) -> dict[str, str]:
    """The name of each element's potential in a step, e.g. "Li_sv", by element symbol."""
    from pymatgen.io.vasp.sets import MPRelaxSet, MPScanRelaxSet

    scan = step.functional == "r2scan" or not step.counts
    return dict((MPScanRelaxSet if scan else MPRelaxSet).CONFIG["POTCAR"])


def potentials_root(settings: VaspSettings) -> Path:
    """The folder of all potentials.

    Raises `OracleSetupError` when none is set or the folder is not there.
    """
    from pymatgen.core import SETTINGS

    root = settings.potcar_dir or SETTINGS.get("PMG_VASP_PSP_DIR")
    if root is None:
        raise OracleSetupError(
            "VASP needs its PAW potentials, which come with the VASP licence: lay them out with "
            '"pmg config -p POTENTIALS FOLDER" and set vasp.potcar_dir, or PMG_VASP_PSP_DIR in ~/.pmgrc.yaml, to FOLDER'
        )
    root = Path(root).expanduser()
    if not root.is_dir():
        raise OracleSetupError(f"the folder of VASP potentials {root} does not exist; set vasp.potcar_dir")
    return root


def check_potentials(symbols: Iterable[str], settings: VaspSettings) -> None:
    """Raises `ElementsLackDataError` naming every potential that these elements need in any step and lack."""
    root, wanted = potentials_root(settings), sorted(set(symbols))
    missing: dict[str, str] = {}
    for step in plan_steps(settings):
        names, releases = potential_symbols(step), potential_releases(step, settings)
        for symbol in wanted:
            name, release = names.get(symbol, symbol), releases[symbol]
            if _find_potential(root, name, release) is None:
                missing[f"{name} of {release}"] = str(root / _release_folder(release) / f"POTCAR.{name}")
    if missing:
        raise ElementsLackDataError(
            f"no POTCAR for {', '.join(missing)} (looked for {next(iter(missing.values()))} and the like); "
            "add them, or leave these elements out of the chemistry"
        )


def _read_potential(symbol: str, releases: dict[str, str], settings: VaspSettings) -> Any:
    """The potential `symbol` ("Li_sv") of its element's release, checked to be a PBE potential of that name."""
    from pymatgen.io.vasp.inputs import PotcarSingle

    root, release = potentials_root(settings), releases[symbol.partition("_")[0]]
    path = _find_potential(root, symbol, release)
    if path is None:
        raise OracleSetupError(f"no POTCAR for {symbol} of {release} in {root / _release_folder(release)}")
    try:
        potential = PotcarSingle.from_file(str(path))
        title, exchange = potential.TITEL.split()[1], potential.LEXCH
    except (OSError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise OracleSetupError(f"{path} is not a readable POTCAR: {type(error).__name__}: {error}") from error
    if title != symbol or exchange != "PE":
        raise OracleSetupError(
            f"{path} holds the potential {title!r} with LEXCH = {exchange}, must be {symbol!r} with LEXCH = PE; "
            "lay the folder out again with pmg config -p"
        )
    return potential


def _find_potential(root: Path, name: str, release: str) -> Path | None:
    folder = root / _release_folder(release)
    candidates = (folder / f"POTCAR.{name}", folder / name / "POTCAR")
    paths = (path.with_name(path.name + suffix) for path in candidates for suffix in _COMPRESSED)
    return next((path for path in paths if path.is_file()), None)


def _release_folder(release: str) -> str:
    """Name of a release's folder, as pymatgen and its configuration have it."""
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp.inputs import PotcarSingle

    renamed: dict[str, str] = SETTINGS.get("PMG_VASP_PSP_SUB_DIRS") or {}
    return renamed.get(release) or PotcarSingle.functional_dir[release]
