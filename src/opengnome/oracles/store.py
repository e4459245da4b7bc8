"""One calculation, one file: a one-row Parquet table that holds everything, bit for bit.

An array is a struct of its dtype, its shape and its bytes; None is null. A file appears under its name
only when it is complete (written beside it, synchronised, renamed), so a file that is there is whole.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.replacement import replace_file
from opengnome.errors import InvalidCrystalError, OpenGnomeError
from opengnome.oracles.oracle import Calculation, Frames, OracleIdentity, Status

FORMAT = "opengnome-calculation-1"
"""Name and version of the file format, kept in the schema's metadata."""

_ARRAY = pa.struct([("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.binary())])
_CRYSTAL_FIELDS = tuple(f.name for f in fields(Crystal))
_FRAME_FIELDS = tuple(f.name for f in fields(Frames))
_IDENTITY_FIELDS = tuple(f.name for f in fields(OracleIdentity))

_SCHEMA = pa.schema(
    [
        ("status", pa.string()),
        ("reason", pa.string()),
        *((f"initial_{name}", _ARRAY) for name in _CRYSTAL_FIELDS),
        *((f"crystal_{name}", _ARRAY) for name in _CRYSTAL_FIELDS),
        ("energy", pa.float64()),
        ("forces", _ARRAY),
        ("stress", _ARRAY),
        *((f"frames_{name}", _ARRAY) for name in _FRAME_FIELDS),
        ("n_steps", pa.int64()),
        ("fmax", pa.float64()),
        ("seconds", pa.float64()),
        *((f"oracle_{name}", pa.string()) for name in _IDENTITY_FIELDS),
        ("band_gap", pa.float64()),
        ("corrections", pa.list_(pa.string())),
    ],
    metadata={"format": FORMAT},
)


def write_calculation(path: Path, calculation: Calculation) -> None:
    """Write `calculation` to `path`, replacing what is there; survives a crash at any moment."""
    frames = calculation.frames
    row: dict[str, Any] = {
        "status": calculation.status.value,
        "reason": calculation.reason,
        "energy": calculation.energy,
        "forces": _pack(calculation.forces),
        "stress": _pack(calculation.stress),
        "n_steps": calculation.n_steps,
        "fmax": calculation.fmax,
        "seconds": calculation.seconds,
        "band_gap": calculation.band_gap,
        "corrections": list(calculation.corrections),
        **{f"oracle_{name}": value for name, value in asdict(calculation.oracle).items()},
        **{f"frames_{name}": _pack(getattr(frames, name, None)) for name in _FRAME_FIELDS},
        **{f"initial_{name}": _pack(getattr(calculation.initial, name)) for name in _CRYSTAL_FIELDS},
        **{f"crystal_{name}": _pack(getattr(calculation.crystal, name, None)) for name in _CRYSTAL_FIELDS},
    }
    table = pa.Table.from_pylist([row], schema=_SCHEMA)
    # statistics and dictionaries of a hundred one-value columns would be most of the file
    replace_file(
        path,
        lambda temporary: pq.write_table(
            table, temporary, compression="zstd", use_dictionary=False, write_statistics=False
        ),
    )


def read_calculation(path: Path) -> Calculation:
    """Read what `write_calculation` wrote.

    Raises `OpenGnomeError` when the file is missing, damaged or of another format.
    """
    row = _read_row(path)
    try:
        initial = _crystal(row, "initial")
        if initial is None:
            raise InvalidCrystalError("it has no initial crystal")
        return Calculation(
            status=Status(row["status"]),
            reason=row["reason"],
            initial=initial,
            crystal=_crystal(row, "crystal"),
            energy=row["energy"],
            forces=_unpack(row["forces"]),
            stress=_unpack(row["stress"]),
            frames=_frames(row),
            n_steps=row["n_steps"],
            fmax=row["fmax"],
            seconds=row["seconds"],
            oracle=OracleIdentity(**{name: row[f"oracle_{name}"] for name in _IDENTITY_FIELDS}),
            # files of before these two were kept have neither
            band_gap=row.get("band_gap"),
            corrections=tuple(row.get("corrections") or ()),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise OpenGnomeError(f"{path} is damaged: {error}; delete it and calculate again") from error


def _read_row(path: Path) -> dict[str, Any]:
    try:
        table = pq.ParquetFile(path).read()  # ParquetFile: no guess at partitions from the folder's name
    except FileNotFoundError:
        raise OpenGnomeError(f"there is no calculation {path}") from None
    except (OSError, pa.ArrowException) as error:
        raise OpenGnomeError(f"{path} is not a readable Parquet file: {error}") from error
    found = (table.schema.metadata or {}).get(b"format", b"").decode()
    if found != FORMAT or table.num_rows != 1:
        raise OpenGnomeError(
            f"{path} has {table.num_rows} rows of format {found!r}; a calculation is one row of {FORMAT!r}"
        )
    return table.to_pylist()[0]


def _crystal(row: dict[str, Any], prefix: str) -> Crystal | None:
    arrays = [_unpack(row[f"{prefix}_{name}"]) for name in _CRYSTAL_FIELDS]
    return None if arrays[0] is None else Crystal(*arrays)  # type: ignore[arg-type]


def _frames(row: dict[str, Any]) -> Frames | None:
    arrays = [_unpack(row[f"frames_{name}"]) for name in _FRAME_FIELDS]
    return None if arrays[0] is None else Frames(*arrays)  # type: ignore[arg-type]


def _pack(array: np.ndarray | None) -> dict[str, Any] | None:
    if array is None:
        return None
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}


def _unpack(packed: dict[str, Any] | None) -> np.ndarray | None:
    if packed is None:
        return None
    return np.frombuffer(packed["data"], dtype=np.dtype(packed["dtype"])).reshape(packed["shape"])
