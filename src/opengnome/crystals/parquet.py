"""Crystal tables as Parquet files in the project's schema (`docs/conventions.md`)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.geometry import check_distances
from opengnome.crystals.replacement import replace_file
from opengnome.crystals.table import CrystalTable
from opengnome.errors import InvalidCrystalError

_ROW_GROUP_SIZE = 5000
"""Crystals per row group: about a megabyte, so that one part of a large table can be read by itself."""
ARRAY_COLUMNS = ("lattice", "atomic_numbers", "frac_coords")


def read_table(path: Path) -> CrystalTable:
    """A crystal table with all its columns; `material_id` is accepted for `id`.

    Shapes are checked, values are not: a row that is no crystal raises when it is asked for.
    Raises `InvalidCrystalError` when the file is missing, is not Parquet, or lacks columns.
    """
    return CrystalTable.from_arrow(_read_arrow(path))


def write_table(path: Path, table: CrystalTable) -> None:
    """Write a table as Parquet (zstd), whole or not at all; see `replacement.replace_file`."""
    replace_file(
        path,
        lambda temporary: pq.write_table(table.arrow, temporary, compression="zstd", row_group_size=_ROW_GROUP_SIZE),
    )


def read_rows(path: Path) -> Iterator[tuple[str | None, Crystal | InvalidCrystalError]]:
    """The id and the crystal of each row of a table, with the error in place of a row that is no crystal.

    Raises `InvalidCrystalError` when the file is not Parquet or lacks columns.
    """
    names = _column_names(path)
    missing = [name for name in ARRAY_COLUMNS if name not in names]
    if missing:
        raise InvalidCrystalError(
            f"{path.name} lacks the columns {missing}; a crystal table has {list(ARRAY_COLUMNS)}, and id or material_id"
        )
    id_column = next((name for name in ("id", "material_id") if name in names), None)
    arrow = _read_arrow(path, [*([id_column] if id_column else []), *ARRAY_COLUMNS])
    for row in range(arrow.num_rows):
        row_id = arrow[id_column][row].as_py() if id_column else None
        yield None if row_id is None else str(row_id), _crystal_or_error(arrow, row)


def _crystal_or_error(arrow: pa.Table, row: int) -> Crystal | InvalidCrystalError:
    try:
        lattice, atomic_numbers, frac_coords = (_row_values(arrow, name, row) for name in ARRAY_COLUMNS)
        if len(lattice) != 9 or len(frac_coords) % 3:
            raise InvalidCrystalError(
                f"lattice has {len(lattice)} and frac_coords {len(frac_coords)} values, must be 9 and a multiple of 3"
            )
        if not (np.isfinite(atomic_numbers).all() and (atomic_numbers == np.round(atomic_numbers)).all()):
            raise InvalidCrystalError("atomic_numbers has missing or fractional values, must be whole numbers")
        crystal = Crystal(lattice.reshape(3, 3), frac_coords.reshape(-1, 3), atomic_numbers)
        check_distances(crystal)
    except InvalidCrystalError as error:
        return error
    return crystal


def _row_values(arrow: pa.Table, name: str, row: int) -> np.ndarray:
    values = arrow[name][row].values
    if values is None:
        raise InvalidCrystalError(f"{name} is missing")
    return values.to_numpy(zero_copy_only=False)


def _column_names(path: Path) -> list[str]:
    try:
        return pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise InvalidCrystalError(_unreadable(path, error)) from error


def _read_arrow(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InvalidCrystalError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"there is no file {path}"
    return f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}"
