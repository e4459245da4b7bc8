"""Candidates from files of parents, in shards; from formulas; and formulas: the functions behind `generate`."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from opengnome.campaign import work
from opengnome.campaign.commands import NO_PREDICTION, load_compositional_ensemble
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.execution import Ended, Unit, local_executor
from opengnome.campaign.isolation import run_shards
from opengnome.campaign.progress import Progress
from opengnome.campaign.reading import read_all
from opengnome.campaign.reduction import SeenIds
from opengnome.campaign.shards import DUPLICATE, KEPT, PARENTS_PREFIX, shard_counts
from opengnome.campaign.tables import OK, Row
from opengnome.crystals import Composition, CrystalTable, concatenate
from opengnome.crystals.elements import atomic_number
from opengnome.crystals.io import ReadRow, read_crystals, read_table, write_crystals, write_table
from opengnome.crystals.replacement import replace_file
from opengnome.generation import (
    CompositionSettings,
    GenerationSettings,
    RandomStructureSettings,
    known_composition_keys,
    random_crystals,
    system_compositions,
)

PARENTS_PER_SHARD = 50
"""Parents of one unit of work. Fixed, so that the same parents give the same shards on any machine."""


def generate_candidates(
    paths: Sequence[Path],
    output: Path,
    *,
    known: Path | None,
    seed: int,
    settings: GenerationSettings,
    workers: int = 1,
    progress: Progress,
) -> tuple[dict[str, int], list[ReadRow]]:
    """Candidates from the crystals in `paths`, written to `output`; counts, and parents that could not be read.

    The parents are cut into shards; each is a pure function of its parents, the settings, the known compositions and
    the seed, and leaves a file in the folder ``<output>.shards`` until `output` is complete. So any number of workers
    gives the same candidates in the same order, and a command that was killed goes on when it is given again.
    """
    read = read_all(paths)
    parents = [(r.id, r.crystal) for r in read if r.crystal is not None]
    known_crystals = [] if known is None else [r.crystal for r in read_crystals(known) if r.crystal is not None]
    formulas = sorted({c.reduced_formula for c in [*(c for _, c in parents), *known_crystals]})
    folder = output.with_name(f"{output.name}.shards")
    table = CrystalTable.from_crystals([c for _, c in parents], [i for i, _ in parents])
    units = _units(folder, table, formulas, seed=seed, settings=settings)

    def run(stage: str, shards: Sequence[Unit]) -> Iterator[Ended]:
        return run_with_progress(shards, lambda: local_executor(workers), progress=progress, stage=stage)

    parents_path = units[0].arguments["parents_path"]
    for _ in run_shards(units, run, stage="generating", parents_path=parents_path, tell=progress.message):
        pass
    counts = _merge([unit.path for unit in units], output)
    shutil.rmtree(folder, ignore_errors=True)
    return counts, [r for r in read if r.crystal is None]


def generate_random(
    formulas: Sequence[str], output: Path, *, number: int, seed: int, settings: RandomStructureSettings
) -> dict[str, int]:
    """Random crystals of `formulas`, `number` of each, written to `output`; how many of each formula there are.

    Raises `InvalidCrystalError` for a formula that cannot be read or an element without a tabulated volume, and
    `SettingsError` when no formula unit fits into the largest cell.
    """
    compositions = [Composition.from_formula(formula) for formula in formulas]
    tables = [random_crystals(composition, settings, seed=seed, stop=number) for composition in compositions]
    write_crystals(output, concatenate(tables))
    return {c.reduced_formula: len(table) for c, table in zip(compositions, tables, strict=True)}


def composition_rows(
    systems: Sequence[str],
    *,
    known: Path | None,
    model: Path | None,
    seed: int,
    settings: CompositionSettings,
) -> list[Row]:
    """Plausible new formulas of chemical systems (``Li-Fe-O``), the lowest predicted formation energy first.

    `model` is the folder of a compositional ensemble; the shipped one when there is none. Raises
    `InvalidCrystalError` when a system names an unknown element.
    """
    known_crystals = [] if known is None else [r.crystal for r in read_crystals(known) if r.crystal is not None]
    keys = known_composition_keys(frozenset(crystal.reduced_formula for crystal in known_crystals))
    compositions: list[Composition] = []
    for system in systems:
        elements = sorted({atomic_number(symbol) for symbol in system.split("-")})
        counts, _ = system_compositions(elements, settings, known_keys=keys, seed=seed)
        compositions += [Composition(tuple(zip(elements, row, strict=True))) for row in counts.tolist()]
    if not compositions:
        return []
    ensemble = load_compositional_ensemble(model)
    prediction = ensemble.predict(compositions)
    rows = [
        {
            "id": f"comp-{composition.reduced_formula}",
            "reduced_formula": composition.reduced_formula,
            "status": NO_PREDICTION if reason else OK,
            "reason": reason,
            "chemical_system": composition.chemical_system,
            "method": "composition",
            "formation_energy_per_atom": None if reason else float(energy),
            "formation_energy_std": None if reason else float(std),
        }
        for composition, energy, std, reason in zip(
            compositions, prediction.formation_energy_per_atom, prediction.std, prediction.reasons, strict=True
        )
    ]
    return sorted(rows, key=lambda row: (bool(row["reason"]), row["formation_energy_per_atom"], row["id"]))


def _units(
    folder: Path, table: CrystalTable, formulas: Sequence[str], *, seed: int, settings: GenerationSettings
) -> list[Unit]:
    """One unit per shard, named by everything it depends on."""
    parents_path, formulas_path = folder / "parents.parquet", folder / "formulas.txt"
    write_table(parents_path, table)
    replace_file(formulas_path, lambda path: path.write_text("\n".join(formulas) + "\n", encoding="utf-8"))
    inputs = [work.file_digest(path) for path in (parents_path, formulas_path)]
    units = []
    for start in range(0, max(len(table), 1), PARENTS_PER_SHARD):
        stop = min(start + PARENTS_PER_SHARD, len(table))
        content = "\x1f".join([*inputs, settings.model_dump_json(), str(seed), str(start), str(stop)])
        path = folder / f"{start:09d}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.parquet"
        arguments = {
            "path": path,
            "parents_path": parents_path,
            "start": start,
            "stop": stop,
            "formulas_path": formulas_path,
            "formulas_digest": inputs[1],
            "generation": settings,
            "seed": seed,
        }
        units.append(Unit(path, work.generate_shard, arguments))
    return units


def _merge(shards: Sequence[Path], output: Path) -> dict[str, int]:
    """Write the shards one after another, crystals that an earlier one gave left out; the counts of all."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(shard_counts(shard))
    kept = _without_repeats(shards, counts)
    if output.suffix == ".parquet":  # a shard at a time: memory does not grow with the number of candidates
        replace_file(output, lambda path: _write_parts(path, kept))
    else:
        write_crystals(output, concatenate(list(kept)))
    return {name: n for name, n in counts.items() if not name.startswith(PARENTS_PREFIX)}


def _without_repeats(shards: Sequence[Path], counts: Counter[str]) -> Iterator[CrystalTable]:
    seen = SeenIds()
    for shard in shards:
        table = read_table(shard)
        new = seen.first_seen(table.ids)
        n_repeated = int((~new).sum())
        counts[DUPLICATE] += n_repeated
        counts[KEPT] -= n_repeated  # proposed stays the sum of kept and rejected
        yield CrystalTable(table.filter(new).arrow.replace_schema_metadata(None))


def _write_parts(path: Path, parts: Iterator[CrystalTable]) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for part in parts:
            writer = writer or pq.ParquetWriter(path, part.arrow.schema, compression="zstd")
            writer.write_table(part.arrow)
    finally:
        if writer is not None:
            writer.close()
