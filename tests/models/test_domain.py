"""What lies outside of what an ensemble has seen."""

import numpy as np
import pytest

from opengnome.crystals import Crystal, CrystalTable
from opengnome.errors import CheckpointError
from opengnome.models.domain import Domain, domain_of

SPREAD = np.linspace(0.0, 0.1, 101)


def caesium_chloride(a: float, first: int = 55, second: int = 17) -> Crystal:
    return Crystal(a * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([first, second]))


@pytest.fixture(scope="module")
def domain() -> Domain:
    crystals = [caesium_chloride(a) for a in np.linspace(3.5, 4.5, 50)]
    crystals += [caesium_chloride(4.0, first=3)] * 3
    table = CrystalTable.from_crystals([*crystals, caesium_chloride(9.0, first=11)])
    return domain_of(table, np.arange(len(table) - 1), SPREAD)  # the last row is not trained on


def test_a_crystal_like_those_seen_gives_no_warning(domain: Domain):
    assert domain.warnings(caesium_chloride(4.0), spread=0.05) == []


@pytest.mark.parametrize(
    ("crystal", "spread", "message"),
    [
        (caesium_chloride(4.0, first=92), 0.05, "U is in no training crystals"),
        (caesium_chloride(4.0, first=11), 0.05, "Na is in no training crystals"),
        (caesium_chloride(4.0, first=3), 0.05, "Li is in 3 training crystals"),
        (caesium_chloride(8.0), 0.05, "256.0 A\\^3 per atom, training crystals have"),
        (caesium_chloride(2.0), 0.05, "A apart, in training crystals"),
        (caesium_chloride(4.0), 0.2, "disagree by 200 meV/atom"),
        (Crystal(4.5 * np.eye(3), np.eye(3) * 0.5, np.array([55, 17, 3])), 0.05, "3 elements"),
    ],
)
def test_what_lies_outside_is_named(domain: Domain, crystal: Crystal, spread: float, message: str):
    import re

    found = domain.warnings(crystal, spread)
    assert any(re.search(message, warning) for warning in found), found


def test_round_trip(domain: Domain):
    import json

    assert Domain.from_dict(json.loads(json.dumps(domain.to_dict()))) == domain
    with pytest.raises(CheckpointError, match="damaged"):
        Domain.from_dict({"element_counts": {}})
