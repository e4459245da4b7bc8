"""Calibration recovers a known relation between spread and error."""

import numpy as np
import pytest
from scipy.stats import norm

from opengnome.errors import CheckpointError, SettingsError
from opengnome.models.calibration import Calibration, coverage, fit_calibration


def make_errors(n: int, *, floor: float, slope: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    spread = rng.gamma(2.0, 0.05, n)
    return rng.normal(0.0, np.hypot(floor, slope * spread)), spread


@pytest.mark.parametrize(("floor", "slope"), [(0.02, 0.8), (0.1, 2.5)])
def test_recovers_floor_and_slope(floor: float, slope: float):
    fitted = fit_calibration(*make_errors(20_000, floor=floor, slope=slope, seed=0))
    assert fitted.floor == pytest.approx(floor, rel=0.1)
    assert fitted.slope == pytest.approx(slope, rel=0.05)
    for level in (0.5, 0.9, 0.95):
        assert fitted.factor(level) == pytest.approx(norm.ppf(0.5 + level / 2), rel=0.03)


def test_coverage_is_nominal_also_for_heavy_tails():
    rng = np.random.default_rng(1)
    spread = rng.gamma(2.0, 0.05, 4000)
    errors = rng.standard_t(2.5, 4000) * np.hypot(0.02, spread)
    measured = coverage(errors, spread)
    assert list(measured) == ["0.50", "0.80", "0.90", "0.95"]
    for level, share in measured.items():
        assert share == pytest.approx(float(level), abs=0.03)


def test_spread_without_information_gives_the_scatter():
    rng = np.random.default_rng(2)
    fitted = fit_calibration(rng.normal(0.0, 0.3, 5000), rng.gamma(2.0, 0.05, 5000))
    assert fitted.std(np.array([0.0, 0.1])) == pytest.approx([0.3, 0.3], rel=0.1)


def test_std_grows_with_spread_and_interval_with_level():
    fitted = fit_calibration(*make_errors(200, floor=0.05, slope=1.0, seed=3))
    std = fitted.std(np.linspace(0, 1, 50))
    assert (np.diff(std) >= 0).all()
    factors = [fitted.factor(level) for level in (0.01, 0.5, 0.8, 0.95, 0.99, 0.999)]
    assert (np.diff(factors) > 0).all()


def test_few_crystals():
    errors, spread = make_errors(60, floor=0.05, slope=1.0, seed=4)
    fitted = fit_calibration(errors, spread)
    assert fitted.factors == ()
    assert fitted.factor(0.9) == pytest.approx(1.6449, abs=1e-4)
    with pytest.raises(SettingsError, match="at least 20"):
        fit_calibration(errors[:19], spread[:19])


def test_errors_of_zero_do_not_break_the_fit():
    fitted = fit_calibration(np.zeros(30), np.zeros(30))
    assert np.isfinite(fitted.std(np.zeros(1))).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0])
def test_impossible_level(level: float):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        Calibration(0.1, 1.0).factor(level)


def test_round_trip_and_damage():
    fitted = fit_calibration(*make_errors(300, floor=0.05, slope=1.0, seed=5))
    assert Calibration.from_dict(fitted.to_dict()) == fitted
    with pytest.raises(CheckpointError, match="damaged"):
        Calibration.from_dict({"floor": 1.0})
