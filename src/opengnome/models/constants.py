"""Numbers that a network takes from its training set."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """Numbers taken from the training set and kept in the checkpoint."""

    mean_neighbours: float
    """Mean number of edges per atom; messages are divided by it."""
    shift: float
    """Mean of the training targets, eV/atom."""
    scale: float
    """Standard deviation of the training targets, eV/atom."""
