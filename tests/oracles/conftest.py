import numpy as np
import pytest

from opengnome.crystals import Crystal
from opengnome.oracles import OracleIdentity


@pytest.fixture(scope="session")
def copper() -> Crystal:
    """Cu4, conventional fcc cell, one atom displaced, 5 % too small."""
    frac = [[0.02, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(3.42 * np.eye(3), np.array(frac), np.full(4, 29))


@pytest.fixture(scope="session")
def identity() -> OracleIdentity:
    return OracleIdentity(name="ase", code="toy", version="1", level="toy", settings_digest="0" * 64)
