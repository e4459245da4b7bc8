"""Files beside the page: a CIF of each discovery and the table of all of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from opengnome.campaign import CampaignResults, Discovery
from opengnome.crystals.cif import cif_text
from opengnome.crystals.replacement import replace_file

FOLDER = "discoveries"

_COLUMNS = (
    "id",
    "reduced_formula",
    "status",
    "reason",
    "chemical_system",
    "n_atoms",
    "space_group",
    "space_group_number",
    "formation_energy_per_atom",
    "decomposition_energy",
    "decomposition_energy_std",
    "decomposition_products",
    "distance_to_initial_hull",
    "predicted_decomposition_energy",
    "predicted_std",
    "round",
    "method",
    "parent_ids",
    "replaced",
    "novelty",
    "nearest_known",
    "prototype",
    "new_chemical_system",
    "cif",
)


def cif_path(root: Path, identifier: str) -> Path:
    """Where the CIF of a discovery lies."""
    return root / FOLDER / f"{identifier}.cif"


def write_discoveries(results: CampaignResults) -> None:
    """Write `discoveries.csv` and a CIF of each discovery; energies in eV/atom.

    CIFs of candidates that are on the hull no more are removed; other files in the folder are left alone.
    """
    folder = results.root / FOLDER
    folder.mkdir(exist_ok=True)
    current = {d.id for d in results.discoveries}
    for identifier in results.choices.keys() - current:
        cif_path(results.root, identifier).unlink(missing_ok=True)
    for discovery in results.discoveries:
        path = cif_path(results.root, discovery.id)
        path.write_text(cif_text(discovery.crystal, name=discovery.id))
    replace_file(results.root / f"{FOLDER}.csv", lambda path: _write_csv(path, results.discoveries))


def _write_csv(path: Path, discoveries: Sequence[Discovery]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(discovery) for discovery in discoveries)


def _row(discovery: Discovery) -> dict[str, object]:
    values = {name: getattr(discovery, name) for name in _COLUMNS if hasattr(discovery, name)}
    return values | {
        "status": "ok",
        "reason": "",
        "chemical_system": discovery.crystal.chemical_system,
        "n_atoms": discovery.crystal.n_atoms,
        "parent_ids": ";".join(discovery.parent_ids),
        "novelty": discovery.novelty.rung.value,
        "nearest_known": discovery.novelty.nearest,
        "prototype": discovery.novelty.prototype,
        "new_chemical_system": discovery.novelty.new_chemical_system,
        "cif": f"{FOLDER}/{discovery.id}.cif",
    }
