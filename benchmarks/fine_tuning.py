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
import torch

from opengnome.crystals.io import read_table
from opengnome.datasets import held_out_mask
from opengnome.graphs import GraphStore, build_store
from opengnome.models import TrainingSettings, shipped_ensemble, train_member
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.manifest import member_paths
from opengnome.models.numerics import numerics

RATES = {"from nothing": 1e-3, "from shipped": 3e-4}


def error(path: Path, graphs: GraphStore, truth: np.ndarray) -> float:
    """Mean absolute error of a network, eV/atom."""
    network = load_checkpoint(path)[0]
    parts = [np.arange(start, min(start + 64, len(graphs))) for start in range(0, len(graphs), 64)]
    with numerics(threads=1), torch.inference_mode():
        predicted = torch.cat([network(graphs.batch(part)) for part in parts]).double().numpy()
    return float(np.abs(predicted - truth).mean())


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
    judged_graphs = build_store(table.take(judged), cutoff=model.cutoff, workers=2)
    rows = []
    for size in options.sizes:
        chosen = order[:size]
        graphs = build_store(table.take(chosen), cutoff=model.cutoff, workers=2)
        row: dict[str, float] = {"training_crystals": size}
        for name, rate in RATES.items():
            training = TrainingSettings(
                epochs=max(1, options.steps * 32 // size), batch_size=32, learning_rate=rate, weight_decay=0.02
            )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "m.safetensors"
                train_member(
                    table.take(chosen),
                    targets[chosen],
                    held_out=np.zeros(size, dtype=bool),
                    model=model,
                    training=training,
                    seed=0,
                    path=path,
                    initial=start if name == "from shipped" else None,
                    graphs=graphs,
                )
                row[name] = error(path, judged_graphs, targets[judged])
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
