"""Which ion may stand in for which: conditional probabilities, and the lists above a threshold.

The paper (Merchant et al. 2023, doi:10.1038/s41586-023-06735-9) changes the model of Hautier et al. in
three ways: ions that stay do not count, so that the number of unchanged ions does not push a target below
the threshold; no weight is below zero, so that pairs the data never saw are merely unlikely; the threshold
is 1e-3. `PAPER` is that model, `STOCK` the one of pymatgen.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from opengnome.generation.ions import species_table

Normalisation = Literal["floored", "floored_without_self", "stock", "stock_without_self"]


@dataclass(frozen=True)
class SubstitutionModel:
    """How conditional probabilities are made from the lambda weights."""

    floor_lambdas: bool = True
    """Whether weights below zero, unseen pairs at -5 among them, are raised to zero."""
    unchanged_ions_count: bool = False
    """Whether an ion that stays contributes its own conditional probability; if not it contributes 1."""
    normalisation: Normalisation = "floored"
    """Over which weights p(target | ion) = exp(lambda) / p_x(ion) is normalised: the sum over all ions of the
    weights after the floor, or of the weights as tabulated (`stock`, unseen pairs at -5); either with the
    term of the ion with itself or without it. The paper does not say. Without the self term two-ion
    targets become 2 to 44 times more numerous."""

    def conditional_probabilities(self) -> np.ndarray:
        """P(target | ion), row = target, column = ion replaced, shape (n_species, n_species), read-only."""
        return _conditional_probabilities(self)


PAPER = SubstitutionModel()
STOCK = SubstitutionModel(floor_lambdas=False, unchanged_ions_count=True, normalisation="stock")


@lru_cache(maxsize=16)
def _conditional_probabilities(model: SubstitutionModel) -> np.ndarray:
    lambdas = species_table().lambdas
    floored = np.maximum(lambdas, 0.0) if model.floor_lambdas else lambdas
    weights = np.exp(lambdas if model.normalisation.startswith("stock") else floored)
    if model.normalisation.endswith("without_self"):
        weights = weights - np.diag(np.diag(weights))
    probabilities = np.exp(floored) / weights.sum(axis=0)
    if not model.unchanged_ions_count:
        np.fill_diagonal(probabilities, 1.0)
    probabilities.setflags(write=False)
    return probabilities


def likely_targets(
    ions: np.ndarray, *, threshold: float, model: SubstitutionModel = PAPER
) -> tuple[np.ndarray, np.ndarray]:
    """All ways to replace a list of distinct ions whose probability exceeds `threshold`.

    `ions` are positions in the species table, shape (k,). Returns the targets, shape (m, k), targets[:, j]
    standing in for ions[j], and their probabilities, shape (m,); no target appears twice in one row, and the
    row where every ion stays is among them if it is likely enough. Branch and bound, one array operation per
    ion: a partial row is dropped when even the likeliest targets of the remaining ions leave it too low.
    """
    columns = model.conditional_probabilities()[:, ions].T
    best = columns.max(axis=1)
    targets = np.empty((1, 0), dtype=np.int64)
    probabilities = np.ones(1)
    for j, column in enumerate(columns):
        product = probabilities[:, None] * column[None, :]
        bound = product
        for factor in best[j + 1 :]:  # one at a time: rounds exactly like pymatgen's product at the threshold
            bound = bound * factor
        likely = bound > threshold
        for earlier in range(j):
            likely[np.arange(len(targets)), targets[:, earlier]] = False
        row, target = np.nonzero(likely)
        targets = np.column_stack([targets[row], target])
        probabilities = product[row, target]
    return targets, probabilities
