"""From screened shards to chosen candidates: the impure shell around `selection`."""

from collections import Counter
from dataclasses import replace

import numpy as np

from opengnome.campaign.acquisition import distances_among_candidates
from opengnome.campaign.context import Context
from opengnome.campaign.events import Choice, Selected
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.selection import CRYSTAL_ARMS, Pool, choose, lowest_per_composition, within_window
from opengnome.campaign.state import CampaignState
from opengnome.campaign.work import DUPLICATE, KEPT
from opengnome.crystals import Composition, CrystalTable, concatenate
from opengnome.crystals.io import read_table, write_table
from opengnome.hull import CompositionArrays, Hull


def select_candidates(context: Context, state: CampaignState, number: int) -> Selected:
    """Measure the pool of a round against the hull, filter it, and choose for every arm."""
    layout, knowledge, progress = context.layout, context.knowledge, context.progress
    table, counts = _merge(context, state, number)
    hull = knowledge.hull(state, before_round=number)
    compositions = _compositions(table)
    predicted = table.arrow["formation_energy_per_atom"].to_numpy()
    hull_energy = hull_formation_energies(hull, compositions)
    pool = Pool(table.ids, table.reduced_formulas, predicted - hull_energy, table.arrow["std"].to_numpy())

    settings = knowledge.settings
    window = within_window(pool, window=settings.screening.window)
    kept = lowest_per_composition(pool, window)
    if settings.rounds.competitors == "candidates":
        among = np.full(len(pool.ids), np.nan)  # more than the lowest of each composition would compete with itself
        among[kept] = distances_among_candidates(
            hull,
            [pool.ids[i] for i in kept.tolist()],
            CompositionArrays.from_compositions([compositions[i] for i in kept.tolist()]),
            predicted[kept],
        )
        pool = replace(pool, among_candidates=among)
    arms = choose(pool, kept, settings.rounds, seed=seed_for(settings.seed, "selection", number))
    positions = sorted({i for chosen in arms.values() for i in chosen}, key=lambda i: pool.ids[i])

    counts |= {
        "generated": len(pool.ids),
        "predicted": int(np.isfinite(pool.decomposition_energy).sum()),
        "within_window": int(window.sum()),
        "lowest_per_composition": len(kept),
        **{f"chosen_{arm}": len(chosen) for arm, chosen in arms.items()},
        "chosen": len(positions),
    }
    write_table(layout.pool(number), _pool_table(table, pool, hull_energy, kept))
    write_table(layout.chosen(number), table.take(positions))
    progress.message(
        f"round {number}: {counts['generated']} candidates, {counts['within_window']} within "
        f"{1e3 * settings.screening.window:.0f} meV/atom, {counts['lowest_per_composition']} compositions, "
        f"{counts['chosen']} chosen"
    )
    initial = hull_formation_energies(knowledge.initial_hull, [compositions[i] for i in positions])
    choices = tuple(
        _choice(table, pool, i, arms, hull_energy[i], initial_energy)
        for i, initial_energy in zip(positions, initial.tolist(), strict=True)
    )
    return Selected(round=number, counts=counts, choices=choices, path=layout.relative(layout.pool(number)))


def _merge(context: Context, state: CampaignState, number: int) -> tuple[CrystalTable, dict[str, int]]:
    """All shards of a round as one table, a candidate that several parents gave once; and their summed counts."""
    shards = state.round(number).shards
    table = concatenate([read_table(context.layout.root / shards[s].path) for s in sorted(shards)])
    totals: Counter[str] = Counter()
    for shard in sorted(shards):
        totals.update(shards[shard].counts)
    first = np.sort(np.unique(np.array(table.ids), return_index=True)[1])
    n_repeated = len(table) - len(first)
    totals.update({DUPLICATE: n_repeated, KEPT: -n_repeated})  # proposed stays the sum of kept and rejected
    return table.take(first), dict(totals)


def hull_formation_energies(hull: Hull, compositions: list[Composition]) -> np.ndarray:
    """Formation energy of the hull at each composition, eV/atom, shape (n,)."""
    return hull.formation_energies(compositions, hull.energies_per_atom_at(compositions))


def _compositions(table: CrystalTable) -> list[Composition]:
    cache: dict[str, Composition] = {}
    for formula in table.reduced_formulas:
        if formula not in cache:
            cache[formula] = Composition.from_formula(formula)
    return [cache[formula] for formula in table.reduced_formulas]


def _pool_table(table: CrystalTable, pool: Pool, hull_energy: np.ndarray, kept: np.ndarray) -> CrystalTable:
    """The pool with what was decided of each candidate: what was not kept stays visible."""
    is_kept = np.zeros(len(table), dtype=bool)
    is_kept[kept] = True
    return (
        table.with_column("predicted_decomposition_energy", pool.decomposition_energy)
        .with_column("probability_stable", pool.probability_stable)
        .with_column("hull_energy_per_atom", hull_energy)
        .with_column("kept", is_kept)
    )


def _choice(
    table: CrystalTable,
    pool: Pool,
    i: int,
    arms: dict[str, list[int]],
    hull_energy: float,
    initial_hull_energy: float,
) -> Choice:
    row = {name: table.arrow[name][i].as_py() for name in ("method", "parent_ids", "replaced", "volume_scale")}
    return Choice(
        candidate_id=pool.ids[i],
        reduced_formula=pool.reduced_formulas[i],
        arms=tuple(arm for arm in CRYSTAL_ARMS if i in arms[arm]),
        predicted_formation_energy_per_atom=float(pool.decomposition_energy[i] + hull_energy),
        predicted_std=float(pool.std[i]),
        predicted_decomposition_energy=float(pool.decomposition_energy[i]),
        hull_energy_per_atom=float(hull_energy),
        initial_hull_energy_per_atom=initial_hull_energy,
        probability_stable=float(pool.probability_stable[i]),
        volume_scale=row["volume_scale"],
        method=row["method"],
        parent_ids=tuple(row["parent_ids"]),
        replaced=row["replaced"],
    )
