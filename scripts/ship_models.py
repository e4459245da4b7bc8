"""Put trained ensembles into the package: half-precision weights, calibration, and a card.

    python scripts/ship_models.py structural --data DATA --run runs/mp
    python scripts/ship_models.py compositional --data DATA --run runs/compositional

The members come from `benchmarks/accuracy.py mp` and from `opengnome train --kind compositional`. Weights are rounded
to 16 bits; calibration and every figure of the card are those of the rounded weights, on the compositions whose formula
hash holds them out of all trainings.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opengnome.campaign.train_compositional import elements_of, lowest_energies
from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import read_table
from opengnome.datasets import held_out_mask
from opengnome.models import (
    COMPOSITIONAL_TRAINING,
    StructuralSettings,
    TrainingSettings,
    assemble_compositional,
    assemble_ensemble,
)
from opengnome.models.checkpoint import load_checkpoint, read_json, save_checkpoint
from opengnome.models.manifest import MANIFEST
from opengnome.models.prediction import Prediction

PACKAGE_DATA = Path(__file__).parent.parent / "src" / "opengnome" / "models" / "data"
TARGET = "formation_energy_per_atom"
FAMILIES = {
    **{"O": "oxides", "F": "fluorides", "Cl": "chlorides", "Br": "bromides", "I": "iodides"},
    **{"S": "sulfides", "Se": "selenides", "Te": "tellurides", "N": "nitrides", "P": "phosphides"},
    **{"As": "arsenides", "H": "hydrides", "C": "carbides", "B": "borides"},
}
ORDER = "F O Cl N Br I S Se As P Te H C B".split()
"""A compound belongs to the first of these that it contains."""
KEPT = ("training", "seed", "n_train", "n_held_out", "metrics", "data_digest")

SOURCE = """Materials Project (CC BY 4.0, A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323), PBE
and PBE+U with the corrections of the 2018-19 database. Structures as distributed in kdmsit/crysxpp (T. Xie and J.
C. Grossman, Phys. Rev. Lett. 120, 145301 (2018); K. Das et al., npj Comput. Mater. 8, 43 (2022)) and
fxcoudert/topology_databases; energies from usnistgov/jarvis_leaderboard (C. Chen et al., Chem. Mater. 31, 3564
(2019)) and C. J. Bartel et al., npj Comput. Mater. 6, 97 (2020). GNoME's own crystals trained nothing here."""
LIMITS = """Energies at 0 K of ordered crystals at the level of theory above; another level differs by more than the
error. Few crystals far above the hull and none under strain were seen, so a volume scan or a badly guessed
structure is an extrapolation. Elements in few training crystals, unusual volumes, short distances and disagreement
of the networks are named in the column `warning` of `opengnome predict`. Intervals hold for crystals like the held-
out ones; for candidates chosen because their prediction is low they are too narrow."""


def family(composition: Composition) -> str:
    """Anion family of a composition; intermetallics have none."""
    symbols = {SYMBOLS[z] for z, _ in composition.counts}
    return next((FAMILIES[symbol] for symbol in ORDER if symbol in symbols), "intermetallics and others")


def groups(compositions: Sequence[Composition], errors: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """MAE by anion family and by number of elements, eV/atom."""
    families = np.array([family(composition) for composition in compositions])
    numbers = np.array([str(composition.n_elements) for composition in compositions])

    def by(labels: np.ndarray) -> dict[str, dict[str, float]]:
        return {
            label: {"n": int((labels == label).sum()), "mae": float(np.abs(errors[labels == label]).mean())}
            for label in np.unique(labels).tolist()
        }

    return {"anion family": by(families), "number of elements": by(numbers)}


def halved(run: Path, folder: Path) -> list[Path]:
    """Members of a run rewritten with 16-bit weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    paths = []
    for index, source in enumerate(sorted((run / "members").glob("*.safetensors"))):
        network, card = load_checkpoint(source)
        path = folder / f"member-{index:02d}.safetensors"
        kept = {key: card[key] for key in KEPT if key in card}
        save_checkpoint(path, network, card=kept, dtype=torch.float16)
        paths.append(path)
    return paths


def ship_structural(data: Path, run: Path, max_atoms: int | None) -> None:
    """Round, calibrate and describe the structural members of a run."""
    folder = PACKAGE_DATA / "structural"
    table = read_table(data / "mp_crystals.parquet")
    held_out = held_out_mask(table.reduced_formulas)
    keep = held_out | (True if max_atoms is None else table.n_atoms <= max_atoms)
    table, held_out = table.filter(keep), held_out[keep]
    targets = np.array(table.column(TARGET), dtype=float)
    ensemble = assemble_ensemble(halved(run, folder), folder, table=table, targets=targets, held_out=held_out)
    judged = table.filter(held_out)
    prediction = ensemble.predict(judged, volume_scales=(1.0,))
    compositions = [crystal.composition for crystal in judged]
    size = "" if max_atoms is None else f" of at most {max_atoms} atoms"
    write_card(
        folder,
        title="Structural ensemble",
        text=f"Formation energy per atom (eV/atom) of a crystal, by {len(ensemble.members)} graph networks.",
        data=f"{int((~held_out).sum()):,} crystals{size}; {int(held_out.sum()):,} held out by formula hash. {SOURCE}",
        retrain=retrain_structural(folder, max_atoms),
        compositions=compositions,
        prediction=prediction,
        truth=targets[held_out],
    )


def ship_compositional(data: Path, run: Path) -> None:
    """Round, calibrate and describe the compositional members of a run."""
    folder = PACKAGE_DATA / "compositional"
    formulas, targets = lowest_energies(data / "mp_crystals.parquet", column=TARGET)
    held_out = held_out_mask(formulas)
    compositions = [Composition.from_formula(f) for f, held in zip(formulas, held_out, strict=True) if held]
    ensemble = assemble_compositional(
        halved(run, folder),
        folder,
        compositions=compositions,
        targets=targets[held_out],
        trained_on=elements_of(f for f, held in zip(formulas, held_out, strict=True) if not held),
        card={},
    )
    write_card(
        folder,
        title="Compositional ensemble",
        text="Formation energy per atom (eV/atom) of the lowest-energy crystal of a composition, by "
        f"{len(ensemble.members)} networks.",
        data=f"{int((~held_out).sum()):,} compositions, the lowest energy of each; {int(held_out.sum()):,} held out by "
        f"formula hash. {SOURCE}",
        retrain=retrain_compositional(folder),
        compositions=compositions,
        prediction=ensemble.predict(compositions),
        truth=targets[held_out],
    )


def retrain_compositional(folder: Path) -> str:
    """The commands that make the compositional ensemble again."""
    cards = [read_json(path) for path in sorted(folder.glob("member-*.json"))]
    options = changed_options("training", COMPOSITIONAL_TRAINING.model_dump(mode="json"), cards[0]["training"])
    return (
        f"opengnome train DATA/mp_crystals.parquet --kind compositional --members {len(cards)}{options} "
        "-o runs/compositional, then python scripts/ship_models.py compositional --data DATA --run runs/compositional"
    )


def retrain_structural(folder: Path, max_atoms: int | None) -> str:
    """The commands that make the structural ensemble again."""
    cards = [read_json(path) for path in sorted(folder.glob("member-*.json"))]
    card, seeds = cards[0], [card["seed"] for card in cards]
    options = changed_options("model", StructuralSettings().model_dump(mode="json"), card["settings"])
    options += changed_options("training", TrainingSettings().model_dump(mode="json"), card["training"])
    limit = "" if max_atoms is None else f" --max-atoms {max_atoms}"
    return (
        f"python benchmarks/accuracy.py mp --data DATA --output runs/mp{limit}{options} --member {seeds[0]} "
        f"(and {', '.join(map(str, seeds[1:]))}), then "
        f"python scripts/ship_models.py structural --data DATA --run runs/mp{limit}"
    )


def changed_options(section: str, default: dict[str, Any], used: dict[str, Any]) -> str:
    """The settings that differ from the defaults, as on the command line."""
    changed = {k: v for k, v in used.items() if k != "save_every" and v != default.get(k)}
    return "".join(f" --set {section}.{key}={value}" for key, value in changed.items())


def write_card(
    folder: Path,
    *,
    title: str,
    text: str,
    data: str,
    retrain: str,
    compositions: Sequence[Composition],
    prediction: Prediction,
    truth: np.ndarray,
) -> None:
    """CARD.md beside the weights; the figures also go into the manifest."""
    errors = prediction.formation_energy_per_atom - truth
    usable = np.isfinite(errors)
    errors = errors[usable]
    compositions = [c for c, good in zip(compositions, usable, strict=True) if good]
    by = groups(compositions, errors)
    manifest = read_json(folder / MANIFEST)
    coverage = manifest["metrics"].get("coverage", {})
    lines = [
        f"# {title}",
        "",
        text,
        "",
        f"**Data.** {data}",
        "",
        f"**Error on the held-out compositions.** MAE {1000 * np.abs(errors).mean():.1f} meV/atom, median "
        f"{1000 * np.median(np.abs(errors)):.1f}, {len(errors):,} of {len(truth):,} judged. Inside the intervals: "
        + ", ".join(f"{100 * float(level):.0f} %: {100 * share:.1f} %" for level, share in coverage.items())
        + ".",
        "",
    ]
    for name, rows in by.items():
        lines += [f"| {name} | crystals | MAE, meV/atom |", "|---|---|---|"]
        ordered = sorted(rows.items(), key=lambda row: row[0] if name.startswith("number") else -row[1]["n"])
        lines += [f"| {label} | {row['n']:,.0f} | {1000 * row['mae']:.1f} |" for label, row in ordered]
        lines.append("")
    lines += [f"**Limits.** {LIMITS}", "", f"**Retrain.** `{retrain}`", "", "**Licence.** Weights: CC BY 4.0.", ""]
    (folder / "CARD.md").write_text("\n".join(lines))
    manifest["metrics"]["by"] = by
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Ship one kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=("structural", "compositional"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--max-atoms", type=int, help="as in the training")
    options = parser.parse_args()
    if options.kind == "structural":
        ship_structural(options.data, options.run, options.max_atoms)
    else:
        ship_compositional(options.data, options.run)


if __name__ == "__main__":
    main()
