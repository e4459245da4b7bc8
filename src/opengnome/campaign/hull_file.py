"""The hull of a round as a file for workers: the entries that lie on it, and nothing else."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.crystals import Composition
from opengnome.crystals.replacement import replace_file
from opengnome.hull import CompositionArrays, EntryTable, Hull

_LEVEL = b"opengnome:level"


def write_hull(path: Path, hull: Hull) -> None:
    """Write the stable entries of `hull`: all that its energy at any composition follows from."""
    stable = hull.stable_entries()
    columns = {
        "id": [entry.id for entry in stable],
        "reduced_formula": [entry.reduced_formula for entry in stable],
        "energy_per_atom": [entry.corrected_energy_per_atom for entry in stable],
    }
    arrow = pa.table(columns).replace_schema_metadata({_LEVEL: hull.level})
    replace_file(path, lambda temporary: pq.write_table(arrow, temporary))


def read_hull(path: Path) -> Hull:
    """The hull that `write_hull` wrote; corrections are part of its energies."""
    arrow = pq.read_table(path)
    compositions = [Composition.from_formula(formula) for formula in arrow["reduced_formula"].to_pylist()]
    return Hull.from_table(
        EntryTable.from_arrays(
            arrow["id"].to_pylist(),
            CompositionArrays.from_compositions(compositions),
            arrow["energy_per_atom"].to_numpy(),
            level=arrow.schema.metadata[_LEVEL].decode(),
        )
    )
