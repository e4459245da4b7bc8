"""Candidate crystals and where they come from, as arrays: no Python object is made per candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from opengnome.crystals import CrystalTable
from opengnome.crystals.composition import reduced_formulas
from opengnome.crystals.crystal import digests

Method = Literal["ionic_substitution", "partial_substitution", "ordered_vacancies"]

_ID_PREFIXES: dict[Method, str] = {
    "ionic_substitution": "ion",
    "partial_substitution": "saps",
    "ordered_vacancies": "vac",
}
_ID_DIGEST_LENGTH = 10


@dataclass(frozen=True, eq=False)
class Candidates:
    """m crystals that one method made from one parent: n atoms each on the parent's sites, its cell rescaled."""

    method: Method
    parent_ids: tuple[str, ...]
    """Ids of the crystals they were made from."""
    frac_coords: np.ndarray
    """Fractional coordinates of the parent's sites, shape (n_sites, 3)."""
    sites: np.ndarray
    """Which of the sites hold an atom, ascending, shape (m, n); all of them unless there are vacancies."""
    lattices: np.ndarray
    """Lattice vectors as rows in A, shape (m, 3, 3)."""
    atomic_numbers: np.ndarray
    """Of the atoms on `sites`, shape (m, n)."""
    replaced: Sequence[str]
    """E.g. ``Ba2+->Sr2+; Ti4+->Zr4+ (1 of 2)`` or ``Ni2+->vacancy (1 of 2)``, one per crystal."""
    probabilities: np.ndarray
    """Conditional probability of each substitution by the data-mined model, shape (m,); NaN for vacancies, about
    which it says nothing."""
    seed: int
    """Seed of the call that made them."""

    def __len__(self) -> int:
        return len(self.lattices)

    @cached_property
    def digests(self) -> list[str]:
        """Content hash of each crystal, as `crystals.digest`."""
        found = np.empty(len(self), dtype=object)
        patterns, pattern_of = np.unique(self.sites, axis=0, return_inverse=True)
        for pattern, sites in enumerate(patterns):
            rows = np.flatnonzero(pattern_of.ravel() == pattern)
            found[rows] = digests(self.lattices[rows], self.frac_coords[sites], self.atomic_numbers[rows])
        return list(found)

    @cached_property
    def reduced_formulas(self) -> list[str]:
        return reduced_formulas(self.atomic_numbers)

    @property
    def ids(self) -> list[str]:
        """``<ion|saps|vac>-<reduced formula>-<start of the digest>``."""
        prefix = _ID_PREFIXES[self.method]
        pairs = zip(self.reduced_formulas, self.digests, strict=True)
        return [f"{prefix}-{formula}-{digest[:_ID_DIGEST_LENGTH]}" for formula, digest in pairs]

    def take(self, rows: np.ndarray) -> "Candidates":
        """The crystals at `rows`."""
        part = Candidates(
            self.method,
            self.parent_ids,
            self.frac_coords,
            self.sites[rows],
            self.lattices[rows],
            self.atomic_numbers[rows],
            [self.replaced[row] for row in rows.tolist()],
            self.probabilities[rows],
            self.seed,
        )
        part.__dict__["digests"] = [self.digests[row] for row in rows.tolist()]  # the dearest of all columns
        return part


def candidate_table(parts: Sequence[Candidates]) -> CrystalTable:
    """Table of candidates with the columns method, parent_ids, replaced, probability (null for none) and seed."""
    lengths = [len(part) for part in parts]
    parents = [list(part.parent_ids) for part in parts]
    return CrystalTable.from_arrays(
        ids=list(chain.from_iterable(part.ids for part in parts)),
        reduced_formulas=list(chain.from_iterable(part.reduced_formulas for part in parts)),
        n_atoms=np.repeat([part.sites.shape[1] for part in parts], lengths).astype(np.int64),
        lattices=_joined([part.lattices for part in parts], (0, 3, 3)),
        atomic_numbers=_joined([part.atomic_numbers.ravel() for part in parts], (0,)),
        frac_coords=_joined([part.frac_coords[part.sites].reshape(-1, 3) for part in parts], (0, 3)),
        columns={
            "method": pa.array(_repeated([part.method for part in parts], lengths), pa.string()),
            "parent_ids": pa.array(_repeated(parents, lengths), pa.list_(pa.string())),
            "replaced": pa.array(list(chain.from_iterable(part.replaced for part in parts)), pa.string()),
            "probability": pa.array(
                _joined([part.probabilities for part in parts], (0,)), pa.float64(), from_pandas=True
            ),  # NaN becomes null
            "seed": pa.array(np.repeat([part.seed for part in parts], lengths).astype(np.int64), pa.int64()),
        },
    )


def _joined(arrays: Sequence[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(empty)


def _repeated(values: Sequence[Any], lengths: Sequence[int]) -> list[Any]:
    return [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
