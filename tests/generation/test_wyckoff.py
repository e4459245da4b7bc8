import moyopy
import numpy as np
import pytest

from opengnome.crystals import Crystal
from opengnome.crystals.symmetry import symmetry_dataset
from opengnome.errors import InvalidCrystalError
from opengnome.generation.random_lattices import random_lattice
from opengnome.generation.wyckoff import N_SPACE_GROUPS, can_place, random_placement, space_group

SAMPLE = (
    1,
    2,
    5,
    12,
    14,
    19,
    47,
    62,
    70,
    87,
    123,
    141,
    148,
    155,
    161,
    166,
    167,
    176,
    194,
    198,
    216,
    221,
    225,
    227,
    230,
)


def test_there_are_1731_positions():
    """The number in the International Tables over the 230 groups."""
    assert sum(len(space_group(number).positions) for number in range(1, N_SPACE_GROUPS + 1)) == 1731


@pytest.mark.parametrize(
    ("number", "positions"),
    [  # multiplicity in the primitive cell and free parameters, from the International Tables
        (1, [(1, 3)]),
        (2, [(1, 0)] * 8 + [(2, 3)]),
        (62, [(4, 0), (4, 0), (4, 2), (8, 3)]),
        (166, [(1, 0), (1, 0), (2, 1), (3, 0), (3, 0), (6, 1), (6, 1), (6, 2), (12, 3)]),
        (194, [(2, 0)] * 4 + [(4, 1), (4, 1), (6, 0), (6, 1), (12, 1), (12, 2), (12, 2), (24, 3)]),
        (
            225,
            [(1, 0), (1, 0), (2, 0), (6, 0), (6, 1), (8, 1), (12, 1), (12, 1), (12, 1), (24, 2), (24, 2), (48, 3)],
        ),
    ],
)
def test_positions_of_known_groups(number, positions):
    assert sorted((p.multiplicity, p.n_free) for p in space_group(number).positions) == sorted(positions)


@pytest.mark.parametrize("number", SAMPLE)
def test_orbits_are_closed_under_the_group(number):
    group = space_group(number)
    rng = np.random.default_rng(number)
    for position in group.positions:
        orbit = position.orbit(rng.random(position.n_free))
        images = np.einsum("oij,nj->noi", group.rotations, orbit) + group.translations
        steps = images[:, :, None, :] - orbit
        on_orbit = np.abs(steps - np.round(steps)).max(axis=-1) < 1e-9  # (atom, operation, atom)
        assert (on_orbit.sum(axis=-1) == 1).all()  # every image is one atom of the orbit
        assert on_orbit.any(axis=1).all()  # and all atoms are images of each


@pytest.mark.parametrize("number", SAMPLE)
def test_the_general_position_has_the_symmetry_of_its_group(number):
    """moyo finds the group, and no other, in a crystal made of general positions in a lattice of the group."""
    group = space_group(number)
    rng = np.random.default_rng(1000 + number)
    lattice = random_lattice(group, volume=400.0 * len(group), min_shortest=4.0, rng=rng)
    general = group.positions[-1]
    assert general.multiplicity == len(group)
    frac = np.concatenate([general.orbit(rng.random(3)) for _ in range(3)])
    numbers = np.repeat([3, 8, 26], len(group))
    assert symmetry_dataset(Crystal(lattice, frac, numbers), symprec=1e-4).number == number


def test_lattices_have_the_symmetry_of_their_group():
    rng = np.random.default_rng(0)
    for number in range(1, N_SPACE_GROUPS + 1):
        group = space_group(number)
        lattice = random_lattice(group, volume=100.0, min_shortest=3.0, rng=rng)
        assert np.linalg.det(lattice) == pytest.approx(100.0)
        metric = lattice @ lattice.T
        moved = group.rotations.swapaxes(1, 2) @ metric @ group.rotations
        np.testing.assert_allclose(moved, np.broadcast_to(metric, moved.shape), atol=1e-9)


def test_operations_are_those_of_moyo():
    operations = moyopy.operations_from_number(227, primitive=True)
    assert len(space_group(227)) == len(operations) == 48
    assert (space_group(227).rotations[0] == np.eye(3)).all()


@pytest.mark.parametrize(
    ("number", "counts", "possible"),
    [
        (225, (1, 1), True),  # rock salt
        (225, (1, 1, 1), False),  # two positions of one atom, both fixed points
        (225, (1, 2), True),  # fluorite
        (225, (1, 3), True),  # 2 on the 8c of the conventional cell and 1 on 4a or 4b
        (225, (1, 1, 6), True),
        (225, (7,), True),  # 1 + 6
        (225, (2, 2), True),  # 1 + 1 for one of them and 2 for the other
        (225, (2, 2, 2), False),
        (227, (2, 4, 8), True),  # spinel
        (221, (1, 1, 3), True),  # perovskite
        (62, (4, 4, 4, 16), True),  # olivine
        (62, (2, 4), False),  # no position of two atoms
        (1, (5, 7, 11), True),
    ],
)
def test_which_compositions_fit_a_group(number, counts, possible):
    assert can_place(number, counts) == possible
    assert (random_placement(number, counts, np.random.default_rng(0)) is not None) == possible


def test_placements_hold_the_atoms_and_use_fixed_points_once():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        number = int(rng.integers(1, N_SPACE_GROUPS + 1))
        counts = tuple(rng.integers(1, 13, size=rng.integers(1, 5)).tolist())
        placement = random_placement(number, counts, rng)
        if placement is None:
            continue
        positions = space_group(number).positions
        held = [0] * len(counts)
        for element, position in zip(placement.elements, placement.positions, strict=True):
            held[element] += positions[position].multiplicity
        assert tuple(held) == counts
        fixed = [p for p in placement.positions if positions[p].n_free == 0]
        assert len(fixed) == len(set(fixed))
        seen.add(number)
    assert len(seen) > 50


def test_every_way_to_place_can_come_out():
    """Perovskite in Pm-3m: A on one of two points, B on the other, oxygen on one of two triples of points."""
    rng = np.random.default_rng(0)
    ways = set()
    for _ in range(200):
        placement = random_placement(221, (1, 1, 3), rng)
        ways.add(tuple(sorted(zip(placement.elements, placement.positions, strict=True))))
    positions = space_group(221).positions
    assert len(ways) == 4
    assert all(positions[p].n_free == 0 for way in ways for _, p in way)


@pytest.mark.parametrize("number", [0, 231, -1])
def test_unknown_groups_are_refused(number):
    with pytest.raises(InvalidCrystalError, match=r"1\.\.230"):
        space_group(number)
