"""Shard files: candidates of some parents with the counts of their generation, judged against a hull or not yet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from opengnome.campaign.judging import JUDGED, judged
from opengnome.crystals import CrystalTable, concatenate
from opengnome.crystals.io import read_table, write_table
from opengnome.generation import GenerationResult
from opengnome.hull import Hull

PARENTS_PREFIX = "parents: "
"""Prefix of the counts that are about parents, not candidates."""
DUPLICATE, KEPT = "duplicate", "kept"
"""The generator's own names for crystals that were made before, and for those it gave."""
COUNT_PREFIX = "opengnome:count:"
"""Key prefix of the generation counts in the metadata of a shard file."""
HULL_KEY = b"opengnome:hull"
"""Key of the digest of the hull that the distances are to."""
ENSEMBLE_KEY = b"opengnome:ensemble"
"""Key of the digest of the ensemble that predicted the energies."""


def write_shard(
    path: Path, table: CrystalTable, result: GenerationResult, *, hull_digest: str = "", ensemble_digest: str = ""
) -> None:
    """Write the candidates of `result` with what `table` adds to them.

    `hull_digest` names what `judged` used, `ensemble_digest` what predicted the energies.
    """
    parents = {f"{PARENTS_PREFIX}{name}": n for name, n in result.parent_counts.items()}
    digests = {HULL_KEY: hull_digest.encode(), ENSEMBLE_KEY: ensemble_digest.encode()}
    _write(path, table, result.counts | parents, digests)


def concatenate_shards(path: Path, parts: Sequence[Path], counts: Mapping[str, int]) -> None:
    """Write one shard of several that were measured against one hull, with the sum of their counts and `counts`."""
    total = sum((Counter(shard_counts(part)) for part in parts), Counter(counts))
    stored = pq.read_schema(parts[0]).metadata or {}
    digests = {key: stored.get(key, b"") for key in (HULL_KEY, ENSEMBLE_KEY)}
    _write(path, concatenate([read_table(part) for part in parts]), total, digests)


def is_of_another_ensemble(path: Path, digest: str) -> bool:
    """Whether the energies of a shard file are those of another ensemble: one that was lost and trained once more.

    Shards of earlier versions do not say, and count as this one's.
    """
    return (pq.read_schema(path).metadata or {}).get(ENSEMBLE_KEY, digest.encode()) != digest.encode()


def _write(path: Path, table: CrystalTable, counts: Mapping[str, int], digests: Mapping[bytes, bytes]) -> None:
    stored = {f"{COUNT_PREFIX}{name}".encode(): str(n).encode() for name, n in counts.items()}
    stored |= {key: value for key, value in digests.items() if value}
    write_table(path, CrystalTable(table.arrow.replace_schema_metadata(stored)))


def shard_counts(path: Path) -> dict[str, int]:
    """The counts of candidates and parents that are stored with a shard."""
    stored = pq.read_schema(path).metadata or {}
    prefix = COUNT_PREFIX.encode()
    return {k.removeprefix(prefix).decode(): int(v) for k, v in stored.items() if k.startswith(prefix)}


def read_judged(path: Path, hull: Hull, columns: Sequence[str] | None = None) -> CrystalTable:
    """A shard with its distances to `hull`; of its columns only those named.

    A shard that an earlier version screened, or that was measured against another hull (a calculation of an earlier
    round was lost and done again since), is measured here: what was predicted of its candidates still holds.
    """
    schema = pq.read_schema(path)
    there = (schema.metadata or {}).get(HULL_KEY, b"").decode() == hull.digest and set(JUDGED) <= set(schema.names)
    if there and columns is not None:
        return CrystalTable(pq.read_table(path, columns=list(columns)).combine_chunks())
    table = read_table(path)
    table = table if there else judged(table, hull)
    return table if columns is None else CrystalTable(table.arrow.select(list(columns)))
