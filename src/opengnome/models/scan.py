"""Energies of crystals over a range of volumes: test-time augmentation against a wrong volume.

A candidate made by substitution has no relaxed volume yet. Its cell is scaled isotropically, the energy is
predicted at every volume, and the lowest counts (Merchant et al. 2023, doi:10.1038/s41586-023-06735-9).
The minimum of several noisy values is biased low, by more the less the network knows of strained crystals;
train on crystals at several volumes, or with `training.volume_noise`, where that matters (`docs/benchmarks.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from opengnome.errors import SettingsError
from opengnome.graphs import OrbitBatch, scaled
from opengnome.models.network import StructuralModel

VOLUME_SCALES: tuple[float, ...] = tuple(np.linspace(0.8, 1.2, 20).tolist())
"""Twenty volumes between 80 % and 120 %, as in the paper."""


@dataclass(frozen=True, eq=False)
class ScanMinimum:
    """The lowest energies of a volume scan of n crystals by m members."""

    energies: np.ndarray
    """Lowest energy of each member, shape (m, n), eV/atom."""
    volume_scale: np.ndarray
    """Relative volume at which the mean energy of the members is lowest, shape (n,)."""


def scan_volumes(
    models: Sequence[StructuralModel],
    graphs: OrbitBatch,
    volume_scales: Sequence[float],
    *,
    bfloat16: bool = False,
) -> ScanMinimum:
    """Lowest energy over `volume_scales` inside each member, then the scale of the mean curve's minimum.

    `graphs` hold the edges within `scan_cutoff`, so neighbours are searched once; all models share a cutoff.
    """
    curves = energy_curves(models, graphs, volume_scales, bfloat16=bfloat16)
    best = curves.mean(axis=0).argmin(axis=0)
    return ScanMinimum(curves.min(axis=1), np.asarray(volume_scales, dtype=float)[best])


def energy_curves(
    models: Sequence[StructuralModel],
    graphs: OrbitBatch,
    volume_scales: Sequence[float],
    *,
    bfloat16: bool = False,
) -> np.ndarray:
    """Energy of every member at every relative volume, shape (n_models, n_scales, n_crystals), eV/atom.

    Each member sees all crystals at all volumes as one batch. `bfloat16` is faster on
    processors with instructions for it, and less exact.
    """
    check_volume_scales(volume_scales)
    batch = scaled(graphs, volume_scales, cutoff=models[0].settings.cutoff)
    device = next(models[0].parameters()).device
    batch = batch.to(device)
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
        curves = torch.stack([model(batch).float() for model in models]).cpu().numpy()
    return curves.astype(np.float64).reshape(len(models), len(volume_scales), graphs.n_graphs)


def scan_cutoff(cutoff: float, volume_scales: Sequence[float]) -> float:
    """Cutoff (A) in the unscaled crystal that holds every edge of every scaled one."""
    return cutoff / min(volume_scales) ** (1.0 / 3.0)


def check_volume_scales(volume_scales: Sequence[float]) -> None:
    """Raises `SettingsError` unless there is at least one scale and all are positive."""
    if not len(volume_scales) or not all(np.isfinite(s) and s > 0 for s in volume_scales):
        raise SettingsError(f"{volume_scales=} must be positive numbers, at least one; (1.0,) is no scan")
