"""Tables of results, a row per crystal: to CSV or Parquet by suffix, or printed."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.crystals.replacement import replace_file
from opengnome.errors import SettingsError

LEADING_COLUMNS = ("id", "reduced_formula", "status", "reason")
OK = "ok"
Row = dict[str, Any]


def failure(identifier: str, status: str, reason: str) -> Row:
    """The row of a crystal that could not be answered for."""
    return {"id": identifier, "reduced_formula": "", "status": status, "reason": reason}


def emit(rows: Sequence[Row], output: Path | None = None, *, as_json: bool = False) -> int:
    """Write or print rows; the exit status: 0 when every row is `ok`, else 1.

    Raises `SettingsError` when `output` has a suffix other than .csv and .parquet.
    """
    if output is not None:
        write_rows(output, rows)
        _summarise(rows, output)
    elif as_json:
        for row in rows:
            print(json.dumps(row, default=str))
    else:
        _print(rows)
    return 0 if all(row["status"] == OK for row in rows) else 1


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as CSV or Parquet, by suffix."""
    columns = columns_of(rows)
    if path.suffix == ".csv":
        replace_file(path, lambda temporary: _write_csv(temporary, rows, columns))
    elif path.suffix == ".parquet":
        table = pa.table({column: [row.get(column) for row in rows] for column in columns})
        replace_file(path, lambda temporary: pq.write_table(table, temporary))
    else:
        raise SettingsError(f"{path} is neither .csv nor .parquet: tables are written as one of these")


def _write_csv(path: Path, rows: Sequence[Row], columns: list[str]) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The leading columns, then every other in the order of first appearance."""
    return list(dict.fromkeys([*LEADING_COLUMNS, *(name for row in rows for name in row)]))


def _summarise(rows: Sequence[Row], output: Path) -> None:
    failed = [row for row in rows if row["status"] != OK]
    print(f"{len(rows)} rows in {output}, {len(failed)} without an answer", file=sys.stderr)
    for row in failed:
        print(f"  {row['id']}: {row['status']}: {row['reason']}", file=sys.stderr)


def _print(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        # a pipe has no width: rows would be cut at 80 columns
        console = Console(width=max(200, console.width))
    table = Table(box=None, pad_edge=False)
    columns = columns_of(rows)
    for name in columns:
        table.add_column(name, justify="left" if name in LEADING_COLUMNS else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in columns))
    console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
