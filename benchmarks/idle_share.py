"""How busy the workers of a campaign were: by stage, and of the whole time.

    python benchmarks/idle_share.py runs/CAMPAIGN

From the records of finished stages in progress.jsonl: seconds that workers were at units, of the seconds that as many
workers as each stage had could be had. The rest is what workers waited: for the last unit of a stage, for the driver,
to start. The last line counts all the time that records span, also that between stages when the driver opens a round,
assembles an ensemble or chooses; as many workers wait then as the stage before had. A stage that was killed has no
record, so that what its workers did counts as waiting.

Nothing in the file says when a driver starts or dies. So time between stages without any record for longer than --gap
is left out, as if no driver ran: but it may also be one long step of the driver alone. Each such gap is printed with
what was recorded before and after it, and the idle share if all of them were waiting.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gap:
    """Time between two records that no stage covers."""

    seconds: float
    workers: int
    before: str
    after: str


@dataclass(frozen=True)
class Span:
    """What workers did, and what they could have done."""

    units: int
    busy_s: float
    """Seconds that workers were at units."""
    wall_s: float
    capacity_s: float
    """Seconds of all workers together."""

    @property
    def idle(self) -> float:
        return 1.0 - self.busy_s / self.capacity_s if self.capacity_s else float("nan")


def read_records(path: Path) -> list[dict]:
    """Records in the order in which they began; one that a kill cut off is left out."""
    lines = path.read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return sorted(records, key=_began)


def _began(record: dict) -> float:
    return record["time"] - record.get("wall_s", 0.0)


def by_stage(records: Sequence[dict]) -> dict[str, Span]:
    """Stages of all rounds together, in the order in which they first ended."""
    stages: dict[str, list[dict]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r["time"]):
        if "stage" in record:
            stages[re.sub(r"^round \d+, ", "", record["stage"])].append(record)
    return {
        name: Span(
            sum(r["units"] for r in found),
            sum(r["busy_s"] for r in found),
            sum(r["wall_s"] for r in found),
            sum(r["workers"] * r["wall_s"] for r in found),
        )
        for name, found in stages.items()
    }


def whole(records: Sequence[dict], longest_gap: float) -> tuple[Span, list[Gap]]:
    """Everything that the records span but longer gaps, and these."""
    workers = next(record["workers"] for record in records if "stage" in record)
    wall = capacity = 0.0
    left_out: list[Gap] = []
    end, last = _began(records[0]), records[0]
    for record in records:
        gap = _began(record) - end
        if gap > longest_gap:
            left_out.append(Gap(gap, workers, last["message"], record["message"]))
        elif gap > 0:
            wall, capacity = wall + gap, capacity + gap * workers
        workers = record.get("workers", workers)
        more = record["time"] - max(end, _began(record))
        if more > 0:
            wall, capacity = wall + more, capacity + more * workers
        if record["time"] >= end:
            end, last = record["time"], record
    stages = [record for record in records if "stage" in record]
    return Span(sum(r["units"] for r in stages), sum(r["busy_s"] for r in stages), wall, capacity), left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("--gap", type=float, default=120.0, help="seconds without a record after which no driver ran")
    options = parser.parse_args()
    records = read_records(options.campaign / "progress.jsonl")
    if not any("stage" in record for record in records):
        raise SystemExit(f"{options.campaign} has no records of stages: it was run by an earlier version")
    if any(record.get("workers", 1) is None for record in records):
        raise SystemExit("how many workers there were is not known: of Dask, and of an executor of one's own")
    print(f"{'stage':30s} {'units':>7s} {'wall, s':>9s} {'idle':>7s}")
    for name, span in by_stage(records).items():
        tell(name, span)
    span, left_out = whole(records, options.gap)
    tell("all, and between stages", span)
    tell_gaps(span, left_out, options.gap)


def tell(name: str, span: Span) -> None:
    idle = f"{100 * span.idle:6.1f}%" if span.capacity_s else "-"
    print(f"{name:30s} {span.units:7d} {span.wall_s:9.1f} {idle:>7s}")


def tell_gaps(span: Span, left_out: Sequence[Gap], longest_gap: float) -> None:
    """What the last line leaves out, so that no long step of the driver vanishes."""
    seconds = sum(gap.seconds for gap in left_out)
    print(f"left out: {seconds:.1f} s in {len(left_out)} gaps of more than {longest_gap:g} s without a record")
    for gap in left_out:
        print(f"  {gap.seconds:.1f} s after {gap.before!r}, before {gap.after!r}")
    if left_out:
        capacity = span.capacity_s + sum(gap.workers * gap.seconds for gap in left_out)
        waited = Span(span.units, span.busy_s, span.wall_s + seconds, capacity)
        tell("with them as waiting", waited)


if __name__ == "__main__":
    main()
