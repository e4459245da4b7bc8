"""The probability of lying below the hull, by the errors that were seen and not by a normal law."""

import numpy as np
import pytest
from scipy.special import ndtr

from opengnome.models.calibration import Calibration, fit_calibration


def test_without_quantiles_it_is_the_normal_law() -> None:
    distances = np.linspace(-0.3, 0.3, 7)
    found = Calibration(0.0, 1.0).probability_below(distances, np.full(7, 0.1))
    np.testing.assert_allclose(found, ndtr(-distances / 0.1))


def test_it_counts_how_often_an_error_is_as_large() -> None:
    """Errors with long tails, as those of networks: most are far smaller than the standard deviation."""
    rng = np.random.default_rng(3)
    errors, spread = rng.laplace(scale=0.02, size=40_000) * rng.choice([1.0, 4.0], size=40_000), np.full(40_000, 0.1)
    fitted = fit_calibration(errors, spread)
    std = fitted.std(spread)
    for distance in (-0.1, -0.01, 0.0, 0.02, 0.08):
        seen = (errors >= distance).mean()  # true = predicted - error
        found = fitted.probability_below(np.array([distance]), std[:1])[0]
        assert found == pytest.approx(seen, abs=0.01)
        if distance == 0.02:
            assert abs(ndtr(-distance / std[0]) - seen) > 0.05, "the normal law is off"


def test_it_agrees_with_the_intervals_and_falls_with_the_distance() -> None:
    calibration = Calibration(0.0, 1.0, tuple(np.linspace(0.02, 1.5, 19).tolist()))
    for level in (0.5, 0.9, 0.95, 0.99):
        edge = np.array([calibration.factor(level)])
        assert calibration.probability_below(edge, np.ones(1))[0] == pytest.approx(0.5 - 0.5 * level)
        assert calibration.probability_below(-edge, np.ones(1))[0] == pytest.approx(0.5 + 0.5 * level)
    assert (np.diff(calibration.probability_below(np.linspace(-5, 5, 200), np.ones(200))) <= 0).all()
