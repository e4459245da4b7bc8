"""Faults that are injected: minutes of killing, run by `make faults` and not with the other tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.driving import end_all


@pytest.fixture(autouse=True)
def no_driver_outlives_its_test() -> Iterator[None]:
    """Drivers are programs of their own: one that a failed test leaves would go on beside the next."""
    yield
    end_all()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Left out unless asked for by name."""
    return None if any("faults" in argument for argument in config.args) else True
