"""A candidate crystal and where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa

from opengnome.crystals import Crystal, CrystalTable, digest

Method = Literal["ionic_substitution", "partial_substitution"]

_ID_PREFIXES: dict[str, str] = {"ionic_substitution": "ion", "partial_substitution": "saps"}
_DIGEST_LENGTH = 10


@dataclass(frozen=True)
class Provenance:
    """How a candidate was made."""

    method: Method
    parent_ids: tuple[str, ...]
    """Ids of the crystals it was made from."""
    replaced: str
    """E.g. ``Ba2+->Sr2+; Ti4+->Zr4+ (1 of 2)``."""
    probability: float
    """Conditional probability of the substitution by the data-mined model."""
    seed: int | None
    """Seed of the call that made it; none where no seed took part."""


@dataclass(frozen=True)
class Candidate:
    """A crystal proposed for evaluation."""

    crystal: Crystal
    provenance: Provenance

    @cached_property
    def digest(self) -> str:
        """Content hash of the crystal."""
        return digest(self.crystal)

    @property
    def id(self) -> str:
        """``<ion|saps>-<reduced formula>-<start of the digest>``."""
        prefix = _ID_PREFIXES[self.provenance.method]
        return f"{prefix}-{self.crystal.reduced_formula}-{self.digest[:_DIGEST_LENGTH]}"


def candidate_table(candidates: Sequence[Candidate]) -> CrystalTable:
    """Table of candidates with the columns method, parent_ids, replaced, probability and seed."""
    provenances = [candidate.provenance for candidate in candidates]
    return CrystalTable.from_crystals(
        [candidate.crystal for candidate in candidates],
        [candidate.id for candidate in candidates],
        {
            "method": pa.array([p.method for p in provenances], pa.string()),
            "parent_ids": pa.array([list(p.parent_ids) for p in provenances], pa.list_(pa.string())),
            "replaced": pa.array([p.replaced for p in provenances], pa.string()),
            "probability": pa.array([p.probability for p in provenances], pa.float64()),
            "seed": pa.array([p.seed for p in provenances], pa.int64()),
        },
    )
