"""Collect what `train_peer.py` wrote for each network into one list, the best first.

    python benchmarks/peers/collect.py peers_out docs/results/peers.json

Throughput alone is left out. Results that are not of one comparison (another time, split, machine) are refused.
"""

import argparse
import json
from pathlib import Path
from typing import Any

COMMON = (
    *(("options", name) for name in ("minutes", "threads", "clock", "limit", "seed")),
    *(("machine", name) for name in ("cpu", "cores")),
    *(("versions", name) for name in ("python", "torch", "numpy")),
)
"""What must be the same for all."""


def results(folder: Path) -> list[dict[str, Any]]:
    """Results with a validation error in a folder."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted((r for r in found if "validation_mae" in r), key=lambda r: r["validation_mae"])


def refuse_mixture(found: list[dict[str, Any]]) -> None:
    """Stop when results were not made alike, and say who differs in what."""
    differing = []
    for section, name in COMMON:
        values = {result["peer"]: result[section].get(name) for result in found}
        if len(set(values.values())) > 1:
            differing.append(f"{name}: {', '.join(f'{peer} {value}' for peer, value in values.items())}")
    if differing:
        raise SystemExit(f"these are not of one comparison: {'; '.join(differing)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="--output of train_peer.py")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    found = results(options.folder)
    if not found:
        raise SystemExit(f"no result with a validation error in {options.folder}")
    refuse_mixture(found)
    options.file.write_text(json.dumps(found, indent=2) + "\n")
    for result in found:
        print(f"{result['peer']}: {1000 * result['validation_mae']:.1f} meV/atom")


if __name__ == "__main__":
    main()
