"""How busy the workers of a campaign were: by stage, and of the whole time.

    python benchmarks/idle_share.py runs/CAMPAIGN

From the records of finished stages in progress.jsonl: seconds that workers were at units, of the seconds that as many
workers as there could be had. The rest is what workers waited: for the last unit of a stage, for the driver, to start.
The last line counts everything from the first record to the last, also the time between stages when the driver opens a
round, assembles an ensemble or chooses. Time when no driver ran is no part of it if the gap is longer than --gap.
"""

import argparse
import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("--gap", type=float, default=120.0, help="seconds without a record after which no driver ran")
    options = parser.parse_args()
    lines = (options.campaign / "progress.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    stages: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        if "stage" in record:
            stages[re.sub(r"^round \d+, ", "", record["stage"])].append(record)
    if not stages:
        raise SystemExit(f"{options.campaign} has no records of stages: it was run by an earlier version")
    workers = max(record["workers"] for records_of in stages.values() for record in records_of)
    print(f"{'stage':30s} {'units':>7s} {'wall, s':>9s} {'idle':>7s}")
    for name, found in stages.items():
        tell(name, sum(r["units"] for r in found), sum(r["wall_s"] for r in found), busy(found), workers)
    everything = [record for found in stages.values() for record in found]
    steps = [b["time"] - a["time"] for a, b in pairwise(records)]
    wall = sum(step for step in steps if step <= options.gap)
    tell("all, and between stages", sum(r["units"] for r in everything), wall, busy(everything), workers)


def busy(records: list[dict]) -> float:
    return sum(record["busy_s"] for record in records)


def tell(name: str, units: int, wall_s: float, busy_s: float, workers: int) -> None:
    print(f"{name:30s} {units:7d} {wall_s:9.1f} {100 * (1 - busy_s / (workers * wall_s)):6.1f}%")


if __name__ == "__main__":
    main()
