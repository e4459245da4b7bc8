"""How busy the workers of a campaign were: by stage, and of the whole time.

    python benchmarks/idle_share.py runs/CAMPAIGN

From the records of finished stages in progress.jsonl: seconds that workers were at units, of the seconds that as many
workers as there could be had. The rest is what workers waited: for the last unit of a stage, for the driver, to start.
The last line counts all the time that records span, also that between stages when the driver opens a round, assembles
an ensemble or chooses. Time when no driver ran is no part of it if it is longer than --gap; a stage that was killed has
no record, so that what its workers did counts as waiting.
"""

import argparse
import json
import re
from collections import defaultdict
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
    numbers = {record["workers"] for found in stages.values() for record in found}
    if None in numbers:
        raise SystemExit("how many workers there were is not known: of Dask, and of an executor of one's own")
    workers = max(numbers)
    print(f"{'stage':30s} {'units':>7s} {'wall, s':>9s} {'idle':>7s}")
    for name, found in stages.items():
        tell(name, sum(r["units"] for r in found), sum(r["wall_s"] for r in found), busy(found), workers)
    everything = [record for found in stages.values() for record in found]
    wall = covered([(r["time"] - r.get("wall_s", 0.0), r["time"]) for r in records], options.gap)
    tell("all, and between stages", sum(r["units"] for r in everything), wall, busy(everything), workers)


def covered(intervals: list[tuple[float, float]], gap: float) -> float:
    """Seconds that intervals cover together, with what lies between them up to `gap`."""
    total, end = 0.0, None
    for start, stop in sorted(intervals):
        if end is None or start - end > gap:
            total += stop - start
        else:
            total += max(stop - end, 0.0)
        end = stop if end is None else max(end, stop)
    return total


def busy(records: list[dict]) -> float:
    return sum(record["busy_s"] for record in records)


def tell(name: str, units: int, wall_s: float, busy_s: float, workers: int) -> None:
    idle = f"{100 * (1 - busy_s / (workers * wall_s)):6.1f}%" if wall_s else "-"
    print(f"{name:30s} {units:7d} {wall_s:9.1f} {idle:>7s}")


if __name__ == "__main__":
    main()
