"""Energies of crystals over a range of volumes: test-time augmentation against a wrong volume.

A candidate made by substitution has no relaxed volume yet. Its cell is scaled isotropically, the energy is
predicted at every volume, and the lowest counts (Merchant et al. 2023, doi:10.1038/s41586-023-06735-9).
The minimum of several noisy values is biased low, by more the less the network knows of strained crystals;
train on crystals at several volumes, or scan a narrow range, where that matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from opengnome.errors import SettingsError
from opengnome.graphs import GraphBatch, rescaled
from opengnome.models.structural import StructuralModel

VOLUME_SCALES: tuple[float, ...] = tuple(np.linspace(0.8, 1.2, 20).tolist())
"""Twenty volumes between 80 % and 120 %, as in the paper."""


@dataclass(frozen=True, eq=False)
class ScanMinimum:
    """The lowest energies of a volume scan of n crystals by m members."""

    energies: np.ndarray
    """Lowest energy of each member, shape (m, n), eV/atom."""
    volume_scale: np.ndarray
    """Relative volume at which the mean energy of the members is lowest, shape (n,)."""


def scan_volumes(models: Sequence[StructuralModel], graphs: GraphBatch, volume_scales: Sequence[float]) -> ScanMinimum:
    """Lowest energy over `volume_scales` inside each member, then the scale of the mean curve's minimum.

    `graphs` hold the edges within `scan_cutoff`, so neighbours are searched once; all models share a cutoff.
    """
    curves = energy_curves(models, graphs, volume_scales)
    best = curves.mean(axis=0).argmin(axis=0)
    return ScanMinimum(curves.min(axis=1), np.asarray(volume_scales, dtype=float)[best])


def energy_curves(models: Sequence[StructuralModel], graphs: GraphBatch, volume_scales: Sequence[float]) -> np.ndarray:
    """Energy of every member at every relative volume, shape (n_models, n_scales, n_crystals), eV/atom."""
    check_volume_scales(volume_scales)
    curves = np.empty((len(models), len(volume_scales), graphs.n_graphs))
    with torch.inference_mode():
        for index, scale in enumerate(volume_scales):
            scaled = rescaled(graphs, volume_scale=scale, cutoff=models[0].settings.cutoff)
            for member, model in enumerate(models):
                curves[member, index] = model(scaled).numpy()
    return curves


def scan_cutoff(cutoff: float, volume_scales: Sequence[float]) -> float:
    """Cutoff (A) in the unscaled crystal that holds every edge of every scaled one."""
    return cutoff / min(volume_scales) ** (1.0 / 3.0)


def check_volume_scales(volume_scales: Sequence[float]) -> None:
    """Raises `SettingsError` unless there is at least one scale and all are positive."""
    if not len(volume_scales) or not all(np.isfinite(s) and s > 0 for s in volume_scales):
        raise SettingsError(f"{volume_scales=} must be positive numbers, at least one; (1.0,) is no scan")
