"""POSCAR and extended XYZ files, read and written through ASE."""

import re
from collections.abc import Iterator, Mapping
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.geometry import check_distances
from opengnome.crystals.interop import from_ase
from opengnome.errors import InvalidCrystalError

_QUOTED_ID = re.compile(r'(?:^|\s)(?:id|material_id)="((?:[^"\\]|\\.)*)"')


def read_poscar(path: Path) -> Crystal:
    """The crystal of a VASP POSCAR or CONTCAR file that names its elements (VASP 5 and later).

    Raises `InvalidCrystalError` with the reason when it cannot be read or two atoms are at one place.
    """
    from ase.io import read

    _check_names_elements(path)
    try:
        atoms = read(path, format="vasp")
    except Exception as error:  # ASE raises whatever the broken line leads to
        raise InvalidCrystalError(f"not a readable POSCAR: {_one_line(error)}") from error
    return _checked(atoms)


def _check_names_elements(path: Path) -> None:
    """Refuse a file whose sixth line counts atoms: ASE would take their elements from the title, whatever it says."""
    with path.open("rb") as file:
        words = next(islice(file, 5, None), b"").split()
    if words and all(word.isdigit() for word in words):
        raise InvalidCrystalError(
            "a POSCAR of VASP 4, without element names; add the line of symbols before the counts"
        )


def read_extxyz(path: Path) -> list[tuple[str | None, Crystal | InvalidCrystalError]]:
    """The frames of an extended XYZ file: the id that the frame carries (or None) and the crystal or error.

    A frame that cannot be parsed is one error, and so is all behind a line that should count the atoms and does not:
    where the next frame starts is not known then. Deuterium and tritium are read as hydrogen.
    """
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        return [(None, InvalidCrystalError(f"not a readable extxyz file: {_one_line(error)}"))]
    frames = [_parsed_frame(frame) for frame in _frames(lines)]
    return frames or [(None, InvalidCrystalError("the extxyz file holds no frames"))]


def _frames(lines: list[str]) -> Iterator[list[str]]:
    """The lines of each frame: a number of atoms, a comment, the atoms."""
    start = 0
    while start < len(lines):
        count = lines[start].strip()
        if not count:
            start += 1
            continue
        stop = start + int(count) + 2 if count.isdecimal() else len(lines)
        yield lines[start:stop]
        start = stop


def _parsed_frame(lines: list[str]) -> tuple[str | None, Crystal | InvalidCrystalError]:
    from ase.io.extxyz import read_extxyz as ase_frames

    identifier = _quoted_id(lines[1]) if len(lines) > 1 else None
    atoms_lines = [re.sub(r"^(\s*)[DT]\b", r"\1H", line) for line in lines[2:]]
    try:
        (atoms,) = ase_frames(StringIO("\n".join([*lines[:2], *atoms_lines]) + "\n"), index=slice(0, 1))
    except Exception as error:  # ASE raises whatever the broken line leads to
        return identifier, InvalidCrystalError(f"not a readable extxyz frame: {_one_line(error)}")
    return identifier or _frame_id(atoms.info), _crystal_or_error(atoms)


def _quoted_id(comment: str) -> str | None:
    """The id as it is written; ASE would take ``"001"`` for the number 1."""
    found = _QUOTED_ID.search(comment)
    return None if found is None else re.sub(r"\\(.)", r"\1", found.group(1))


def write_poscar(path: Path, crystal: Crystal) -> None:
    """One crystal as a POSCAR with direct coordinates; sites of one element are brought together."""
    order = np.argsort(crystal.atomic_numbers, kind="stable")
    numbers = crystal.atomic_numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=0))
    symbols = [crystal.symbols[order[start]] for start in starts]
    counts = np.diff([*starts, len(numbers)])
    rows = [" ".join(f"{value:.12f}" for value in row) for row in crystal.lattice]
    sites = [" ".join(f"{value:.12f}" for value in row) for row in crystal.frac_coords[order]]
    header = [crystal.reduced_formula, "1.0", *rows, " ".join(symbols), " ".join(map(str, counts)), "Direct"]
    path.write_text("\n".join([*header, *sites]) + "\n")


def write_extxyz(path: Path, frames: list[tuple[Crystal, Mapping[str, Any]]]) -> None:
    """Frames of extended XYZ, each with the scalar values given for it in its comment line."""
    path.write_text("".join(_extxyz_frame(crystal, values) for crystal, values in frames))


def _extxyz_frame(crystal: Crystal, values: Mapping[str, Any]) -> str:
    lattice = " ".join(f"{value:.12f}" for value in crystal.lattice.ravel())
    pairs = [f"{key}={_extxyz_value(value)}" for key, value in values.items() if _is_scalar(value)]
    comment = " ".join([f'Lattice="{lattice}"', 'Properties=species:S:1:pos:R:3 pbc="T T T"', *pairs])
    rows = zip(crystal.symbols, crystal.positions, strict=True)
    atoms = [f"{symbol} {x:.12f} {y:.12f} {z:.12f}" for symbol, (x, y, z) in rows]
    return "\n".join([str(crystal.n_atoms), comment, *atoms]) + "\n"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)


def _extxyz_value(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        return f'"{escaped}"'
    return repr(value)


def _frame_id(info: Mapping[str, Any]) -> str | None:
    value = info.get("id", info.get("material_id"))
    # A boolean or a float is an id that ASE took for a value ('T', '1e5'); its text is lost.
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | int | np.integer):
        return None
    return str(value)


def _crystal_or_error(atoms: Any) -> Crystal | InvalidCrystalError:
    try:
        return _checked(atoms)
    except InvalidCrystalError as error:
        return error


def _checked(atoms: Any) -> Crystal:
    crystal = from_ase(atoms)
    check_distances(crystal)
    return crystal


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()
