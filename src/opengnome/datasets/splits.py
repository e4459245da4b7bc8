"""Train/test membership by a hash of the composition, so that it never moves between rounds.

GNoME (doi:10.1038/s41586-023-06735-9) splits every data set by the MD5 of the reduced formula modulo 100
at 85. The rows it released with an `Is Train` flag fit "train if the bucket is 15 or more" (21 of 21),
not the literal "below 85" (18 of 21), so that direction is used here.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

TEST_BUCKETS = 15
"""Buckets 0..14 of 100 are held out."""


def hash_bucket(reduced_formula: str) -> int:
    """Bucket 0..99 of a reduced formula, written exactly as pymatgen prints it."""
    return int(hashlib.md5(reduced_formula.encode(), usedforsecurity=False).hexdigest(), 16) % 100


def is_train(reduced_formula: str) -> bool:
    """Whether crystals of this composition may be trained on."""
    return hash_bucket(reduced_formula) >= TEST_BUCKETS


def held_out_mask(reduced_formulas: Sequence[str]) -> np.ndarray:
    """True where a composition is held out for test and calibration; shape (n,)."""
    return np.array([not is_train(formula) for formula in reduced_formulas], dtype=bool)
