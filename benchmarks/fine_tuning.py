"""Fine-tuning the shipped networks against training from nothing, on crystals of another source.

    python benchmarks/fine_tuning.py --table gnome_pbe.parquet [--sizes 250 1000 4000] [--json FILE]

For each number of training crystals a network is trained from random weights and from a member of the shipped ensemble,
with the same crystals, and judged on the same crystals of held-out compositions (hash split). The networks made here
are thrown away.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from opengnome.crystals.io import read_table
from opengnome.datasets import held_out_mask
from opengnome.graphs import build_store
from opengnome.models import TrainingSettings, shipped_ensemble, train_member
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.manifest import member_paths

RATES = {"from nothing": 1e-3, "from shipped": 3e-4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--ensemble", type=Path, help="folder; the shipped ensemble by default")
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--steps", type=int, default=2500, help="steps of training, whatever the size")
    parser.add_argument("--judged", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = read_table(options.table)
    targets = np.array(table.column("formation_energy_per_atom"), dtype=float)
    held_out = held_out_mask(table.reduced_formulas)
    rng = np.random.default_rng(0)
    judged = rng.permutation(np.flatnonzero(held_out))[: options.judged]
    order = rng.permutation(np.flatnonzero(~held_out))
    start = member_paths(options.ensemble or shipped_ensemble())[0]
    model = load_checkpoint(start)[0].settings
    rows = []
    for size in options.sizes:
        chosen = np.concatenate([order[:size], judged])
        part, mask = table.take(chosen), np.arange(len(chosen)) >= size
        graphs = build_store(part, cutoff=model.cutoff, workers=2)
        row: dict[str, float] = {"training_crystals": size}
        for name, rate in RATES.items():
            training = TrainingSettings(
                epochs=max(1, options.steps * 32 // size), batch_size=32, learning_rate=rate, weight_decay=0.02
            )
            with tempfile.TemporaryDirectory() as folder:
                report = train_member(
                    part,
                    targets[chosen],
                    held_out=mask,
                    model=model,
                    training=training,
                    seed=0,
                    path=Path(folder) / "m.safetensors",
                    initial=start if name == "from shipped" else None,
                    graphs=graphs,
                )
            row[name] = float(report.held_out_mae or np.nan)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
