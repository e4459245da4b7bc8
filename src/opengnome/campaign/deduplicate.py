"""The function behind `opengnome dedup`: files of crystals in, a row per crystal out, with what it duplicates."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from opengnome.campaign.tables import OK, Row, failure
from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.deduplication import INVALID, deduplicate
from opengnome.crystals.identity import fingerprint, protostructure_label
from opengnome.crystals.io import read_crystals
from opengnome.errors import InvalidCrystalError, SettingsError


def deduplicated_rows(
    paths: Sequence[Path], *, energy: str | None = None, labels: bool = False, workers: int = 1
) -> list[Row]:
    """Which crystals in `paths` are the same, a row per crystal in the order of reading.

    Columns `cluster` (a number), `representative` (an id), `is_representative`, `step` (`unique`,
    `representative`, `exact` or `match`), `cluster_size`. Of a cluster the first crystal is the representative, or the
    one lowest in the column `energy` (eV per atom) of the tables among `paths`. With `labels` also `fingerprint` and
    `protostructure`, null where there is none. A crystal that cannot be read, or compared, is a row with
    status and reason.
    Raises `SettingsError` when an energy is asked for and no input has the column.
    """
    rows, crystals, energies = _read(paths, energy)
    good = [place for place, crystal in enumerate(crystals) if crystal is not None]
    table = CrystalTable.from_crystals([c for c in crystals if c is not None], [rows[i]["id"] for i in good])
    found = deduplicate(table, energies=None if energy is None else np.array(energies)[good], workers=workers)
    ids, cluster, size = table.ids, found.cluster, found.cluster_size
    for i, place in enumerate(good):
        rows[place] |= {
            "reduced_formula": table.reduced_formulas[i],
            "status": found.status[i],
            "reason": found.reason[i],
            "cluster": int(cluster[i]),
            "representative": ids[found.representative[i]],
            "is_representative": bool(found.representative[i] == i),
            "step": found.step[i],
            "cluster_size": int(size[i]),
        }
        if energy is not None:
            rows[place][energy] = None if np.isnan(energies[place]) else energies[place]
        if labels:
            rows[place] |= _names(table[i])
    return rows


def _names(crystal: Crystal) -> Row:
    names: Row = {"fingerprint": None, "protostructure": None}
    for column, name in (("fingerprint", fingerprint), ("protostructure", protostructure_label)):
        try:
            names[column] = name(crystal)
        except InvalidCrystalError as error:
            names["label_reason"] = str(error)
    return names


def _read(paths: Sequence[Path], energy: str | None) -> tuple[list[Row], list[Crystal | None], list[float]]:
    """A row, the crystal if it could be read, and the energy if there is one (else NaN) of each crystal.

    Ids are made unique by a number.
    """
    rows: list[Row] = []
    crystals: list[Crystal | None] = []
    energies: list[float] = []
    taken: set[str] = set()
    has_energy = False
    for path in paths:
        read = read_crystals(path)
        values = _energies(path, energy)
        has_energy |= values is not None
        for row in read:
            identifier, n = row.id, 2
            while identifier in taken:
                identifier, n = f"{row.id}-{n}", n + 1
            taken.add(identifier)
            rows.append({"id": identifier, "status": OK} if row.crystal else failure(identifier, INVALID, row.reason))
            crystals.append(row.crystal)
        energies += [float("nan")] * len(read) if values is None else values
    if energy is not None and not has_energy:
        raise SettingsError(f"no input has the column {energy!r}; energies are read from Parquet tables of crystals")
    return rows, crystals, energies


def _energies(path: Path, column: str | None) -> list[float] | None:
    """A column of a table of crystals, NaN where it is null; None where there is no such table or column."""
    if column is None or path.suffix != ".parquet" or column not in pq.read_schema(path).names:
        return None
    values = pq.read_table(path, columns=[column])[column].to_pylist()
    return [float("nan") if value is None else float(value) for value in values]
