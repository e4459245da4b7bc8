"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from opengnome.crystals import Crystal

_SHARED_DATA = Path(os.environ.get("OPENGNOME_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and so would be the programs that tests stop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public DFT tables; tests that need it are skipped where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip(f"the public data tables are not at {_SHARED_DATA}; set OPENGNOME_DATA to their folder")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def rock_salt() -> Crystal:
    """NaCl, primitive cell, 2 atoms."""
    a = 5.64
    lattice = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal(lattice, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))


@pytest.fixture(scope="session")
def perovskite() -> Crystal:
    """Cubic SrTiO3, 5 atoms."""
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(3.905 * np.eye(3), np.array(frac), np.array([38, 22, 8, 8, 8]))
