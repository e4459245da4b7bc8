"""Many crystals as flat arrays over an Arrow table: the unit of bulk work.

The columns are those of the project's Parquet schema (`docs/conventions.md`): `id`, `reduced_formula`,
`n_atoms`, `lattice` (list of 9), `atomic_numbers` (list of n), `frac_coords` (list of 3n), and any further
column. Slicing shares memory; no Python object exists per crystal until one is asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from opengnome.crystals.composition import reduced_formulas
from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.errors import InvalidCrystalError

STRUCTURE_COLUMNS = ("id", "reduced_formula", "n_atoms", "lattice", "atomic_numbers", "frac_coords")
_ID_ALIASES = ("id", "material_id")
_SURE_VOLUME = 0.1
"""Cells above this volume (A^3) are surely no degenerate ones."""

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("reduced_formula", pa.string()),
        ("n_atoms", pa.int32()),
        ("lattice", pa.list_(pa.float64())),
        ("atomic_numbers", pa.list_(pa.int16())),
        ("frac_coords", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True, eq=False)
class CrystalTable:
    """Crystals as columns. Indexing gives a `Crystal`; slicing, `take` and `filter` give a table."""

    arrow: pa.Table
    """The table; make one with `from_crystals` or `from_arrow`, which check it."""

    @classmethod
    def from_crystals(
        cls,
        crystals: Sequence[Crystal],
        ids: Sequence[str] | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> "CrystalTable":
        """Table of `crystals`; ids default to "0", "1", ...; `columns` adds further columns by name.

        Raises `InvalidCrystalError` when lengths differ.
        """
        ids = [str(i) for i in range(len(crystals))] if ids is None else list(ids)
        if len(ids) != len(crystals):
            raise InvalidCrystalError(f"{len(ids)} ids for {len(crystals)} crystals")
        data: dict[str, Any] = {
            "id": ids,
            "reduced_formula": [c.reduced_formula for c in crystals],
            "n_atoms": [c.n_atoms for c in crystals],
            "lattice": [c.lattice.ravel() for c in crystals],
            "atomic_numbers": [c.atomic_numbers.astype(np.int16) for c in crystals],
            "frac_coords": [c.frac_coords.ravel() for c in crystals],
        }
        arrow = pa.table(data, schema=_SCHEMA)
        for name, values in (columns or {}).items():
            arrow = arrow.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
        return cls(arrow)

    @classmethod
    def from_arrays(
        cls,
        *,
        ids: Sequence[str],
        reduced_formulas: Sequence[str],
        n_atoms: np.ndarray,
        lattices: np.ndarray,
        atomic_numbers: np.ndarray,
        frac_coords: np.ndarray,
        columns: Mapping[str, pa.Array] | None = None,
    ) -> "CrystalTable":
        """Table of flat arrays as its properties of the same names give them; they are not checked.

        For generators, whose crystals are right by construction: no Python object is made per crystal.
        """
        atoms = np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int32)
        arrays = {
            "id": pa.array(ids, pa.string()),
            "reduced_formula": pa.array(reduced_formulas, pa.string()),
            "n_atoms": pa.array(n_atoms, pa.int32()),
            "lattice": _lists(9 * np.arange(len(n_atoms) + 1, dtype=np.int32), lattices.ravel(), pa.float64()),
            "atomic_numbers": _lists(atoms, atomic_numbers, pa.int16()),
            "frac_coords": _lists(3 * atoms, frac_coords.ravel(), pa.float64()),
        }
        return cls(pa.table(arrays | dict(columns or {})))

    @classmethod
    def from_arrow(cls, arrow: pa.Table) -> "CrystalTable":
        """Adopt an Arrow table in the project's schema; `material_id` is renamed to `id`, ids become text.

        A row without an id is called by its number.

        Raises `InvalidCrystalError` naming the columns that are missing, or the rows whose lists have the
        wrong length.
        """
        if "id" not in arrow.column_names:
            names = ["id" if n == "material_id" else n for n in arrow.column_names]
            arrow = arrow.rename_columns(names)
        missing = [name for name in STRUCTURE_COLUMNS if name not in arrow.column_names]
        if missing:
            raise InvalidCrystalError(
                f"the table lacks the columns {missing}; a crystal table has {list(STRUCTURE_COLUMNS)} "
                f"({' or '.join(_ID_ALIASES)} for the id)"
            )
        _check_lengths(arrow)
        return cls(_with_text_ids(arrow).combine_chunks())

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __getitem__(self, index: int) -> Crystal:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"crystal {index} of a table of {n}")
        index %= n
        start, stop = self.offsets[index], self.offsets[index + 1]
        return Crystal(self.lattices[index], self.flat_frac_coords[start:stop], self.flat_atomic_numbers[start:stop])

    def __iter__(self) -> Iterator[Crystal]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def offsets(self) -> np.ndarray:
        """Atoms of crystal i are rows offsets[i]:offsets[i+1] of the flat arrays; shape (n_crystals + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """Atoms per crystal, shape (n_crystals,)."""
        return self.arrow["n_atoms"].to_numpy().astype(np.int64)

    @cached_property
    def lattices(self) -> np.ndarray:
        """Lattice vectors as rows, shape (n_crystals, 3, 3), Angstrom."""
        return _flat(self.arrow["lattice"], np.float64).reshape(-1, 3, 3)

    @cached_property
    def flat_atomic_numbers(self) -> np.ndarray:
        """Atomic numbers of all atoms, shape (sum of n_atoms,)."""
        return _flat(self.arrow["atomic_numbers"], np.int64)

    @cached_property
    def flat_frac_coords(self) -> np.ndarray:
        """Fractional coordinates of all atoms, shape (sum of n_atoms, 3)."""
        return _flat(self.arrow["frac_coords"], np.float64).reshape(-1, 3)

    @cached_property
    def ids(self) -> list[str]:
        return self.arrow["id"].to_pylist()

    @cached_property
    def reduced_formulas(self) -> list[str]:
        return self.arrow["reduced_formula"].to_pylist()

    @property
    def column_names(self) -> list[str]:
        return self.arrow.column_names

    def column(self, name: str) -> list[Any]:
        """A column as a Python list.

        Raises `InvalidCrystalError` naming the columns there are when `name` is not one.
        """
        if name not in self.arrow.column_names:
            raise InvalidCrystalError(f"the table has no column {name!r}; its columns are {self.column_names}")
        return self.arrow[name].to_pylist()

    def slice(self, start: int, stop: int | None = None) -> "CrystalTable":
        """Rows start..stop; shares memory."""
        length = None if stop is None else max(0, stop - start)
        return CrystalTable(self.arrow.slice(start, length))

    def take(self, indices: ArrayLike) -> "CrystalTable":
        """Rows at integer positions, in that order."""
        return CrystalTable(self.arrow.take(pa.array(np.asarray(indices, dtype=np.int64))))

    def filter(self, mask: ArrayLike) -> "CrystalTable":
        """Rows where the boolean mask, shape (n_crystals,), is true."""
        return CrystalTable(self.arrow.filter(pa.array(np.asarray(mask, dtype=bool))))

    def with_column(self, name: str, values: Any) -> "CrystalTable":
        """The table with one more column, or with the column of that name replaced."""
        array = values if isinstance(values, pa.Array) else pa.array(values)
        if name in self.arrow.column_names:
            return CrystalTable(self.arrow.set_column(self.arrow.column_names.index(name), name, array))
        return CrystalTable(self.arrow.append_column(name, array))

    def with_own_formulas(self) -> "CrystalTable":
        """The table with the reduced formulas of its crystals, whatever its column says (``ClNa``, ``Na4Cl4``).

        Raises `InvalidCrystalError` for atomic numbers of no element.
        """
        formulas = np.empty(len(self), dtype=object)
        for n in np.unique(self.n_atoms).tolist():
            rows = np.flatnonzero(self.n_atoms == n)
            formulas[rows] = reduced_formulas(self.flat_atomic_numbers[self.offsets[rows][:, None] + np.arange(n)])
        return self.with_column("reduced_formula", pa.array(formulas.tolist(), pa.string()))


def concatenate(tables: Sequence[CrystalTable]) -> CrystalTable:
    """One table after another; columns that are missing somewhere are filled with nulls."""
    return CrystalTable(pa.concat_tables([t.arrow for t in tables], promote_options="permissive").combine_chunks())


def _lists(offsets: np.ndarray, values: np.ndarray, of: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, of))


def unreadable_rows(table: CrystalTable) -> dict[int, str]:
    """Rows that are no crystal (numbers that are not finite, unknown elements, a flat cell), with the reason.

    Only those that look suspicious are built. Two atoms at one place are not looked for.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        volumes = np.abs(np.linalg.det(table.lattices))
    numbers = table.flat_atomic_numbers
    bad_atoms = ~np.isfinite(table.flat_frac_coords).all(axis=1) | (numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)
    row_of_atom = np.repeat(np.arange(len(table)), table.n_atoms)
    suspect = np.bincount(row_of_atom, weights=bad_atoms, minlength=len(table)) > 0
    suspect |= ~(volumes > _SURE_VOLUME) | ~np.isfinite(volumes) | (table.n_atoms < 1)
    reasons = {}
    for row in np.flatnonzero(suspect).tolist():
        try:
            table[row]
        except InvalidCrystalError as error:
            reasons[row] = str(error)
    return reasons


def _flat(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    flat = pc.list_flatten(column).combine_chunks()
    if isinstance(flat, pa.ChunkedArray):  # an empty column stays chunked
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], flat.type)
    return flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def _with_text_ids(arrow: pa.Table) -> pa.Table:
    ids = arrow["id"]
    if ids.type == pa.string() and not ids.null_count:
        return arrow
    named = [f"row-{row}" if value is None else str(value) for row, value in enumerate(ids.to_pylist())]
    return arrow.set_column(arrow.column_names.index("id"), "id", pa.array(named, pa.string()))


def _check_lengths(arrow: pa.Table) -> None:
    n_atoms = pc.fill_null(arrow["n_atoms"], -1).to_numpy()
    for name, expected in (
        ("lattice", np.full(len(n_atoms), 9)),
        ("atomic_numbers", n_atoms),
        ("frac_coords", 3 * n_atoms),
    ):
        lengths = pc.fill_null(pc.list_value_length(arrow[name]), -1).to_numpy()
        wrong = np.flatnonzero(lengths != expected)
        if len(wrong):
            row = int(wrong[0])
            raise InvalidCrystalError(
                f"{len(wrong)} rows have a wrong length of {name!r}, the first is row {row} "
                f"(id {arrow['id'][row].as_py()!r}): {int(lengths[row])} values, must be {int(expected[row])}"
            )
