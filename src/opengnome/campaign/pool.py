"""From screened shards to chosen candidates: the impure shell around `selection`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign.acquisition import distances_among_candidates
from opengnome.campaign.context import Context
from opengnome.campaign.events import Choice, Selected
from opengnome.campaign.judging import hull_formation_energies
from opengnome.campaign.reduction import COLUMNS, Reduction, pool_of
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.selection import (
    CRYSTAL_ARMS,
    Pool,
    choose,
    lowest_per_composition,
    unfiltered_seed,
    within_window,
)
from opengnome.campaign.shards import DUPLICATE, KEPT, read_judged
from opengnome.campaign.state import CampaignState
from opengnome.crystals import Composition, CrystalTable, concatenate
from opengnome.crystals.io import write_table
from opengnome.crystals.replacement import replace_file
from opengnome.hull import CompositionArrays, Hull


def select_candidates(context: Context, state: CampaignState, number: int) -> Selected:
    """Reduce the shards of a round to what may be chosen, and choose for every arm."""
    layout, knowledge, settings = context.layout, context.knowledge, context.settings
    seed = seed_for(settings.seed, "selection", number)
    hull = knowledge.hull(state, before_round=number)
    shards = {shard: layout.root / event.path for shard, event in sorted(state.round(number).shards.items())}
    reduction = Reduction(
        window=settings.screening.window, n_random=settings.rounds.random_unfiltered, seed=unfiltered_seed(seed)
    )
    for shard, path in shards.items():  # one is in memory at a time, and of it only the columns that are needed
        reduction.add(shard, read_judged(path, hull, COLUMNS).arrow)
    table = reduction.table()
    pool = pool_of(table)
    kept = lowest_per_composition(pool, within_window(pool, window=settings.screening.window))
    if settings.rounds.competitors == "candidates":
        pool = _competing_with_each_other(pool, table, kept, hull)
    arms = choose(pool, kept, settings.rounds, seed=seed)
    positions = sorted({i for chosen in arms.values() for i in chosen}, key=lambda i: pool.ids[i])
    crystals = _crystals(table.take(pa.array(positions, pa.int64())), shards, hull)

    counts = _counts(state, number, reduction) | {
        "lowest_per_composition": len(kept),
        **{f"chosen_{arm}": len(chosen) for arm, chosen in arms.items()},
        "chosen": len(positions),
    }
    _write_kept(layout.kept(number), table, pool, kept)
    write_table(layout.chosen(number), crystals)
    context.progress.message(
        f"round {number}: {counts['generated']} candidates, {counts['within_window']} within "
        f"{1e3 * settings.screening.window:.0f} meV/atom, {counts['lowest_per_composition']} compositions, "
        f"{counts['chosen']} chosen"
    )
    choices = _choices(crystals, [_arms_of(i, arms) for i in positions], knowledge.initial_hull)
    return Selected(round=number, counts=counts, choices=choices, path=layout.relative(layout.kept(number)))


def _counts(state: CampaignState, number: int, reduction: Reduction) -> dict[str, int]:
    """Summed counts of the shards, a candidate that several parents gave counted once, and those of the reduction."""
    counts: dict[str, int] = {}
    for screened in state.round(number).shards.values():
        for name, n in screened.counts.items():
            counts[name] = counts.get(name, 0) + n
    found = dict(reduction.counts)
    n_repeated = found.pop("repeated")
    for name, n in {DUPLICATE: n_repeated, KEPT: -n_repeated}.items():  # proposed stays the sum of kept and rejected
        counts[name] = counts.get(name, 0) + n
    return counts | found


def _competing_with_each_other(pool: Pool, table: pa.Table, kept: np.ndarray, hull: Hull) -> Pool:
    """With the distances of `kept`; more than the lowest of each composition would compete with itself."""
    among = np.full(len(pool.ids), np.nan)
    among[kept] = distances_among_candidates(
        hull,
        [pool.ids[i] for i in kept.tolist()],
        CompositionArrays.from_compositions([Composition.from_formula(pool.reduced_formulas[i]) for i in kept]),
        table["formation_energy_per_atom"].to_numpy()[kept],
    )
    return replace(pool, among_candidates=among)


def _crystals(rows: pa.Table, paths: Mapping[int, Path], hull: Hull) -> CrystalTable:
    """The candidates of `rows` with all that their shards have of them, in that order."""
    shards, row_of = rows["shard"].to_numpy(), rows["row"].to_numpy()
    if not len(shards):
        return read_judged(paths[min(paths)], hull).slice(0, 0)
    places = {int(shard): np.flatnonzero(shards == shard) for shard in np.unique(shards)}
    parts = [read_judged(paths[shard], hull).take(row_of[own]) for shard, own in places.items()]
    return concatenate(parts).take(np.argsort(np.concatenate(list(places.values()))))


def _write_kept(path: Path, table: pa.Table, pool: Pool, kept: np.ndarray) -> None:
    """What may have been chosen, the most promising first, and where in the shards it is."""
    columns = table.append_column("probability_stable", pa.array(pool.probability_stable))
    if pool.among_candidates is not None:
        columns = columns.append_column("distance_among_candidates", pa.array(pool.among_candidates))
    order = [("predicted_decomposition_energy", "ascending"), ("id", "ascending")]
    rows = columns.take(pa.array(kept, pa.int64())).sort_by(order).replace_schema_metadata(None)
    replace_file(path, lambda temporary: pq.write_table(rows, temporary, compression="zstd"))


def _arms_of(position: int, arms: dict[str, list[int]]) -> tuple[str, ...]:
    return tuple(arm for arm in CRYSTAL_ARMS if position in arms[arm])


def _choices(crystals: CrystalTable, arms: list[tuple[str, ...]], initial_hull: Hull) -> tuple[Choice, ...]:
    compositions = [Composition.from_formula(formula) for formula in crystals.reduced_formulas]
    initial = hull_formation_energies(initial_hull, compositions).tolist()
    return tuple(
        Choice(
            candidate_id=row["id"],
            reduced_formula=row["reduced_formula"],
            arms=of_row,
            predicted_formation_energy_per_atom=row["formation_energy_per_atom"],
            predicted_std=row["std"],
            predicted_decomposition_energy=row["predicted_decomposition_energy"],
            hull_energy_per_atom=row["hull_energy_per_atom"],
            initial_hull_energy_per_atom=initial_energy,
            probability_stable=row["probability_stable"],
            volume_scale=row["volume_scale"],
            method=row["method"],
            parent_ids=tuple(row["parent_ids"]),
            replaced=row["replaced"],
        )
        for row, of_row, initial_energy in zip(_rows(crystals), arms, initial, strict=True)
    )


def _rows(crystals: CrystalTable) -> list[dict[str, Any]]:
    """All but the structures."""
    rows: list[dict[str, Any]] = crystals.arrow.drop_columns(["lattice", "atomic_numbers", "frac_coords"]).to_pylist()
    return rows
