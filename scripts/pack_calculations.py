"""Put the finished calculations of a folder into one file, and back, so that a run can go on elsewhere.

    python scripts/pack_calculations.py pack runs/flagship/known.calculations known_calculations.parquet
    python scripts/pack_calculations.py unpack known_calculations.parquet runs/flagship/known.calculations

Each row is a calculation file as it is (`opengnome.oracles.read_calculation` reads it): input, relaxed crystal, frames
with energies, forces and stresses, corrections, oracle. Files that are there already are not replaced.
"""

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.crystals.replacement import replace_file
from opengnome.oracles import read_calculation


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    (pack if arguments.task == "pack" else unpack)(arguments.source, arguments.target)


def pack(folder: Path, file: Path) -> None:
    """One row per calculation, sorted by name; one that cannot be read stops it."""
    paths = sorted(folder.glob("*.parquet"))
    formulas = [read_calculation(path).initial.reduced_formula for path in paths]
    table = pa.table(
        {"name": [path.name for path in paths], "formula": formulas, "content": [path.read_bytes() for path in paths]}
    )
    replace_file(file, lambda temporary: pq.write_table(table, temporary, compression="zstd", compression_level=15))
    print(f"{len(paths)} calculations in {file}, {file.stat().st_size / 1e6:.2f} MB")


def unpack(file: Path, folder: Path) -> None:
    """Write the files that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(file).select(["name", "content"]).to_pylist()
    missing = [row for row in rows if not (folder / row["name"]).exists()]
    for row in missing:
        replace_file(folder / row["name"], lambda temporary, row=row: temporary.write_bytes(row["content"]))
    print(f"{len(missing)} of {len(rows)} calculations written to {folder}")


if __name__ == "__main__":
    main()
