"""Reading and writing crystals: the front door to all formats.

Reading never loses a crystal in silence: what cannot be read is a `ReadRow` with the reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from opengnome.crystals.cif import cif_text, parse_cif
from opengnome.crystals.crystal import Crystal
from opengnome.crystals.interop import from_ase, from_pymatgen, to_ase, to_pymatgen
from opengnome.crystals.parquet import read_rows, read_table, write_table
from opengnome.crystals.replacement import replace_file
from opengnome.crystals.structure_files import read_extxyz, read_poscar, write_extxyz, write_poscar
from opengnome.crystals.table import CrystalTable
from opengnome.errors import InvalidCrystalError

__all__ = [
    "ReadRow",
    "cif_text",
    "from_ase",
    "from_pymatgen",
    "read_crystals",
    "read_table",
    "to_ase",
    "to_pymatgen",
    "write_crystals",
    "write_table",
]

SUFFIXES = {
    ".cif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".parquet": "parquet",
}
"""Format by file suffix; files named POSCAR... or CONTCAR... are of format poscar."""

_KNOWN_FORMATS = f"{', '.join(SUFFIXES)}, POSCAR* and CONTCAR*"
_Parsed = Iterable[tuple[str | None, Crystal | InvalidCrystalError]]


@dataclass(frozen=True)
class ReadRow:
    """One crystal that was read, or the reason why it could not be."""

    id: str
    """Stem of the file; stem-0, stem-1, ... in a file of several; the id of a table's row or of a frame."""
    crystal: Crystal | None
    reason: str = ""
    """Why there is no crystal; empty exactly when there is one."""

    def __post_init__(self) -> None:
        if (self.crystal is None) != bool(self.reason):
            raise ValueError(f"row {self.id!r} must have a crystal or a reason, not both and not neither")


def read_crystals(path: Path) -> list[ReadRow]:
    """Crystals of one file, or of all files of known formats in a folder, sorted by name.

    A folder is read without its subfolders, hidden files and files of other formats; files in it that share
    a stem have their whole name as id. Every crystal has been checked for two atoms at one place.
    Raises `InvalidCrystalError` when `path` does not exist, is of an unknown format, or is a folder without
    any file to read. Everything else that is wrong is the reason of a row.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file() and _format(f) and not f.name.startswith("."))
        if not files:
            raise InvalidCrystalError(f"no crystals in the folder {path}; files that can be read: {_KNOWN_FORMATS}")
        shared = Counter(_stem(file) for file in files)
        return [
            row for file in files for row in _read_file(file, _stem(file) if shared[_stem(file)] == 1 else file.name)
        ]
    if not path.exists():
        raise InvalidCrystalError(f"there is no file or folder {path}")
    if _format(path) is None:
        raise InvalidCrystalError(f"{path} is of no known format; files that can be read: {_KNOWN_FORMATS}")
    return _read_file(path, _stem(path))


def write_crystals(path: Path, table: CrystalTable) -> None:
    """Write a table by the suffix of `path`, each file whole or not at all.

    Parquet keeps all columns, extxyz the id and the scalar ones. CIF and POSCAR hold one crystal; a path
    without a suffix is a folder of CIFs named by id.
    Raises `InvalidCrystalError` when the suffix is unknown or the format cannot hold the table.
    """
    path = Path(path)
    file_format = _format(path)
    if file_format is None and path.suffix:
        raise InvalidCrystalError(
            f"cannot write {path}: the format {path.suffix!r} is unknown; choose from {_KNOWN_FORMATS}, or a "
            "folder (no suffix) for one CIF each"
        )
    if file_format is None:
        _write_folder(path, table)
    elif file_format == "parquet":
        write_table(path, table)
    elif file_format == "extxyz":
        names = [name for name in table.column_names if name not in ("lattice", "atomic_numbers", "frac_coords")]
        values = table.arrow.select(names).to_pylist()
        replace_file(path, lambda file: write_extxyz(file, list(zip(table, values, strict=True))))
    else:
        crystal = _only_crystal(path, table)
        _write_one(path, crystal, file_format, table.ids[0])


def _write_one(path: Path, crystal: Crystal, file_format: str, crystal_id: str) -> None:
    if file_format == "cif":
        replace_file(path, lambda file: _write_text(file, cif_text(crystal, name=crystal_id)))
    else:
        replace_file(path, lambda file: write_poscar(file, crystal))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_folder(folder: Path, table: CrystalTable) -> None:
    # An id comes from outside; as a file name it must neither leave the folder nor be hidden.
    names = [re.sub(r"[^\w.+-]", "_", crystal_id).lstrip(".") or "_" for crystal_id in table.ids]
    twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if twice:
        raise InvalidCrystalError(f"several crystals would be written to {twice[0]}.cif; ids must be unique")
    folder.mkdir(parents=True, exist_ok=True)
    for name, crystal, crystal_id in zip(names, table, table.ids, strict=True):
        _write_one(folder / f"{name}.cif", crystal, "cif", crystal_id)


def _only_crystal(path: Path, table: CrystalTable) -> Crystal:
    if len(table) != 1:
        raise InvalidCrystalError(
            f"{path.name} holds one crystal, the table has {len(table)}; write .parquet or .extxyz, or give "
            "a folder (no suffix) for one CIF each"
        )
    return table[0]


def _format(path: Path) -> str | None:
    if path.name.upper().startswith(("POSCAR", "CONTCAR")):
        return "poscar"
    return SUFFIXES.get(path.suffix.lower())


def _stem(path: Path) -> str:
    """The id of a file; POSCAR.mp-1 has no suffix, only a name."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _read_file(path: Path, name: str) -> list[ReadRow]:
    read: Callable[[Path], _Parsed] = _READERS[_format(path) or ""]
    try:
        parsed = list(read(path))
    except (InvalidCrystalError, OSError) as error:
        return [ReadRow(name, None, str(error))]
    rows = []
    for number, (row_id, result) in enumerate(parsed):
        row_id = row_id or (name if len(parsed) == 1 else f"{name}-{number}")
        rows.append(ReadRow(row_id, result) if isinstance(result, Crystal) else ReadRow(row_id, None, str(result)))
    return rows


def _read_cif(path: Path) -> _Parsed:
    # Comments in other encodings are common and harmless; what matters of a CIF is ASCII.
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    return [(None, result) for result in parse_cif(text)]


def _read_poscar(path: Path) -> _Parsed:
    return [(None, read_poscar(path))]


_READERS: dict[str, Callable[[Path], _Parsed]] = {
    "cif": _read_cif,
    "poscar": _read_poscar,
    "extxyz": read_extxyz,
    "parquet": read_rows,
}
