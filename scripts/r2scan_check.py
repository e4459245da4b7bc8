"""Do the discoveries of a campaign stay on the hull with another functional?

    python scripts/r2scan_check.py prepare runs/flagship/campaign runs/flagship/r2scan_inputs.parquet --max-atoms 5
    opengnome relax runs/flagship/r2scan_inputs.parquet --oracle gpaw --functional r2scan \
        --output runs/flagship/r2scan.csv --relaxed runs/flagship/r2scan.parquet
    python scripts/r2scan_check.py judge runs/flagship/campaign runs/flagship/r2scan.parquet --output FILE.json

`prepare` writes the discoveries of at most `--max-atoms` atoms with their competing phases: the products each
decomposes into without itself. `judge` compares each discovery's energy with that of the same mixture, both with the
other functional. A phase that competes with the other functional alone is not seen.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opengnome.campaign import CampaignResults, Discovery
from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.io import read_table, write_table
from opengnome.hull import STABILITY_TOLERANCE
from opengnome.oracles import Status


def main() -> None:
    """Prepare the crystals, or judge the discoveries."""
    arguments = _arguments()
    results = CampaignResults(arguments.campaign)
    if arguments.task == "prepare":
        prepare(results, arguments.crystals, max_atoms=arguments.max_atoms, n_most=arguments.number)
    else:
        judge(results, arguments.calculated, arguments.output)


def prepare(results: CampaignResults, path: Path, *, max_atoms: int, n_most: int | None) -> None:
    """Write the small discoveries, the deepest first, and what they compete with."""
    small = [d for d in results.discoveries if d.crystal.n_atoms <= max_atoms][:n_most]
    crystals = {d.id: d.crystal for d in small}
    for discovery in small:
        for identifier in products(results, discovery):
            crystals.setdefault(identifier, crystal_of(results, identifier))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, CrystalTable.from_crystals(list(crystals.values()), list(crystals)))
    print(f"{len(small)} discoveries and {len(crystals) - len(small)} competing phases in {path}")


def judge(results: CampaignResults, path: Path, output: Path) -> None:
    """Distance of each discovery that was asked about to its competing phases, with both functionals."""
    table = read_table(path)
    (level,) = set(table.column("level")) or {""}
    if level in ("", results.hull.level):
        raise SystemExit(f"{path} is of level {level!r}, the campaign of {results.hull.level!r}: give another level")
    rows = zip(table.ids, table.column("energy_per_atom"), table.column("status"), strict=True)
    energies = {identifier: energy for identifier, energy, status in rows if status == Status.CONVERGED}
    asked = [d for d in results.discoveries if d.id in set(table.ids)]
    judged = [verdict(results, d, energies) for d in asked if not lacking(results, d, energies)]
    not_judged = {d.id: missing for d in asked if (missing := lacking(results, d, energies))}
    stays = sum(row["stays"] for row in judged)
    content = {"level": level, "level_before": results.hull.level, "n": len(judged), "stay": stays}
    content |= {"discoveries": judged, "not_judged": not_judged}
    output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{stays} of {len(judged)} discoveries stay on the hull; {len(not_judged)} cannot be judged: {not_judged}")


def lacking(results: CampaignResults, discovery: Discovery, energies: Mapping[str, float]) -> list[str]:
    """Of the discovery and its competing phases, those without a converged energy."""
    return [i for i in (discovery.id, *products(results, discovery)) if i not in energies]


def verdict(results: CampaignResults, discovery: Discovery, energies: Mapping[str, float]) -> dict[str, Any]:
    """One discovery whose energy is known, and those of its competing phases."""
    mixture = products(results, discovery)
    distance = energies[discovery.id] - sum(share * energies[identifier] for identifier, share in mixture.items())
    return {
        "id": discovery.id,
        "formula": discovery.reduced_formula,
        "space_group": discovery.space_group,
        "n_atoms": discovery.crystal.n_atoms,
        "products": discovery.decomposition_products,
        "decomposition_energy_before": discovery.decomposition_energy,
        "decomposition_energy": distance,
        "stays": bool(distance <= STABILITY_TOLERANCE),
    }


def products(results: CampaignResults, discovery: Discovery) -> dict[str, float]:
    """Shares of the atoms of the phases that `discovery` decomposes into, by id."""
    entry = results.entries[discovery.id]
    decomposition = results.hull.decompose(entry.composition, without=frozenset({entry.id}))
    return {identifier: share for identifier, _, share in decomposition.products}


def crystal_of(results: CampaignResults, identifier: str) -> Crystal:
    """A known crystal, or a relaxed candidate."""
    known = results.knowledge.known.table
    if identifier in known.ids:
        return known[known.ids.index(identifier)]
    calculated = next(c for c in results.calculations if c.crystal_id == identifier)
    crystal = results.knowledge.relaxed(calculated)
    if crystal is None:
        raise SystemExit(f"{calculated.path} holds no relaxed crystal; opengnome discover mends the campaign")
    return crystal


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    first = tasks.add_parser("prepare")
    first.add_argument("campaign", type=Path)
    first.add_argument("crystals", type=Path)
    first.add_argument("--max-atoms", type=int, default=5)
    first.add_argument("--number", type=int, help="the deepest so many; all when not given")
    last = tasks.add_parser("judge")
    last.add_argument("campaign", type=Path)
    last.add_argument("calculated", type=Path)
    last.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
