"""From the spread of an ensemble to a standard deviation that means what it says."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

from opengnome.errors import CheckpointError, SettingsError

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Nominal coverages that are reported."""
MIN_FOR_FIT = 20
"""Fewer held-out crystals than this cannot fix two parameters."""
MIN_FOR_QUANTILES = 100
"""Fewer held-out crystals than this give no usable 95 % quantile; normal quantiles are used instead."""
_SMALLEST_STD = 1e-4  # eV/atom; keeps the likelihood finite for a model without error
_TABLE_LEVELS = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2).tolist())


@dataclass(frozen=True)
class Calibration:
    """``std = sqrt(floor^2 + (slope * spread)^2)`` and the quantiles of ``|error| / std``."""

    floor: float
    """Standard deviation where all members agree, eV/atom."""
    slope: float
    """Standard deviation per inter-quartile range; 0.741 for normal, unbiased members."""
    factors: tuple[float, ...] = ()
    """|error| / std not exceeded with probability 0.05, 0.10 ... 0.95; empty: normal quantiles."""

    def std(self, spread: np.ndarray) -> np.ndarray:
        """Standard deviation (n,) for an inter-quartile range (n,), both eV/atom."""
        return np.hypot(self.floor, self.slope * spread)

    def factor(self, level: float) -> float:
        """Half-width in standard deviations of the interval that covers `level` (between 0 and 1)."""
        if not 0.0 < level < 1.0:
            raise SettingsError(f"{level=} must lie between 0 and 1, e.g. 0.9")
        normal = float(ndtri(0.5 + 0.5 * level))
        if not self.factors:
            return normal
        if level > _TABLE_LEVELS[-1]:  # beyond the table: its last value, stretched like a normal tail
            return self.factors[-1] * normal / float(ndtri(0.5 + 0.5 * _TABLE_LEVELS[-1]))
        return float(np.interp(level, (0.0, *_TABLE_LEVELS), (0.0, *self.factors)))

    def probability_below(self, distances: np.ndarray, stds: np.ndarray) -> np.ndarray:
        """Probability that what is predicted at `distances` (n,) above the hull lies on or below it, shape (n,).

        By the quantiles of the errors, which are taken to be as often above as below. `stds` (n,) are calibrated
        standard deviations; both eV/atom.
        """
        ratios = np.asarray(distances, dtype=float) / np.maximum(stds, _SMALLEST_STD)
        size = np.abs(ratios)
        if not self.factors:
            return ndtr(-ratios)
        inside = np.interp(size, (0.0, *self.factors), (0.0, *_TABLE_LEVELS))
        tail = 2.0 * ndtr(size / self.factors[-1] * float(ndtri(0.5 + 0.5 * _TABLE_LEVELS[-1]))) - 1.0
        within = np.where(size > self.factors[-1], tail, inside)  # how often an error is no larger than this
        return np.where(ratios <= 0.0, 0.5 + 0.5 * within, 0.5 - 0.5 * within)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Calibration":
        """Raises `CheckpointError` when the keys are not those of `to_dict`."""
        try:
            return cls(float(data["floor"]), float(data["slope"]), tuple(map(float, data["factors"])))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the calibration of the ensemble is damaged: {error}") from None


def fit_calibration(errors: np.ndarray, spread: np.ndarray) -> Calibration:
    """Maximum-likelihood floor and slope for normal errors, then the quantiles of what remains.

    `errors` (n,) are predicted minus true, eV/atom, of crystals that no member was trained on. Real errors
    have heavier tails than normal ones; the quantiles carry that into the intervals.
    """
    if len(errors) < MIN_FOR_FIT:
        raise SettingsError(f"{len(errors)} held-out crystals; a calibration needs at least {MIN_FOR_FIT}")
    start = np.log([max(float(np.std(errors)), _SMALLEST_STD), 0.741])
    result = minimize(_negative_log_likelihood, start, args=(errors, spread), method="Nelder-Mead")
    fitted = Calibration(*np.exp(result.x).tolist())
    if len(errors) < MIN_FOR_QUANTILES:
        return fitted
    ratios = np.abs(errors) / fitted.std(spread)
    # The (n + 1) / n correction of split conformal prediction: the next crystal counts as well.
    levels = np.minimum(np.array(_TABLE_LEVELS) * (len(errors) + 1) / len(errors), 1.0)
    return Calibration(fitted.floor, fitted.slope, tuple(np.quantile(ratios, levels).tolist()))


def coverage(errors: np.ndarray, spread: np.ndarray) -> dict[str, float]:
    """Share of errors inside the interval of each nominal level, by two-fold cross-fitting.

    The calibration is fitted on one half and judged on the other, so that it does not praise itself.
    """
    even = np.arange(len(errors)) % 2 == 0
    inside: dict[float, list[np.ndarray]] = {level: [] for level in LEVELS}
    for fitted_on in (even, ~even):
        calibration = fit_calibration(errors[fitted_on], spread[fitted_on])
        std = calibration.std(spread[~fitted_on])
        for level in LEVELS:
            inside[level].append(np.abs(errors[~fitted_on]) <= calibration.factor(level) * std)
    return {f"{level:.2f}": float(np.concatenate(parts).mean()) for level, parts in inside.items()}


def _negative_log_likelihood(logs: np.ndarray, errors: np.ndarray, spread: np.ndarray) -> float:
    floor, slope = np.exp(np.clip(logs, -20.0, 5.0))
    variance = floor**2 + (slope * spread) ** 2 + _SMALLEST_STD**2
    return float(np.sum(0.5 * np.log(variance) + 0.5 * errors**2 / variance))
