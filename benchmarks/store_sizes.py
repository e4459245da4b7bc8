"""How large the parts of a campaign's folder are: per calculation, per candidate, per event.

    python benchmarks/store_sizes.py runs/CAMPAIGN [...]

A row of the table for each part, a column for each campaign, bytes.
"""

import argparse
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from opengnome.campaign.journal import Journal
from opengnome.campaign.layout import Layout


def sizes(root: Path) -> dict[str, str]:
    """Text for each part."""
    layout = Layout(root)
    calculations = [path.stat().st_size for path in layout.calculation("").parent.glob("*.parquet")]
    shards = sorted(layout.round(0).parent.glob("*/shards/*.parquet"))
    candidates = sum(pq.read_metadata(path).num_rows for path in shards)
    with Journal(layout.journal, read_only=True) as journal:
        rows = journal.rows()
    chosen = [(row, row.event()) for row in rows if row.type in ("selected", "compositions_proposed")]
    n_chosen = sum(len(event.choices) for _, event in chosen)  # type: ignore[union-attr]
    calculated = [len(row.payload) for row in rows if row.type == "calculated"]
    return {
        "calculations, candidates": f"{len(calculations):,}, {candidates:,}",
        "calculation, its file with all frames: median": f"{median(calculations):,.0f}",
        "calculation, its file with all frames: largest": f"{max(calculations):,}",
        "calculation, its event in the journal": f"{median(calculated):,.0f}",
        "event of any kind, in the file of the journal": f"{layout.journal.stat().st_size / len(rows):,.0f}",
        "candidate, in shards": f"{sum(path.stat().st_size for path in shards) / candidates:,.0f}",
        "chosen candidate, in the journal": f"{sum(len(row.payload) for row, _ in chosen) / n_chosen:,.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", type=Path, nargs="+")
    found = [sizes(root) for root in parser.parse_args().campaigns]
    for name in found[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in found) + " |")


if __name__ == "__main__":
    main()
