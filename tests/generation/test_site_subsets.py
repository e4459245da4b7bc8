from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.generation.subsets import (
    ENUMERATION_LIMIT,
    canonical_subsets,
    n_orbit_unions,
    n_unique_subsets,
    orbit_unions,
    unique_subsets,
)


def closure(generators):
    """All products of the generators: the group, by brute force."""
    identity = tuple(range(len(generators[0])))
    group, frontier = {identity}, [identity]
    while frontier:
        element = frontier.pop()
        for generator in generators:
            image = tuple(generator[i] for i in element)
            if image not in group:
                group.add(image)
                frontier.append(image)
    return np.array(sorted(group))


def classes_by_brute_force(group, size):
    smallest = {
        min(tuple(sorted(permutation[list(subset)].tolist())) for permutation in group)
        for subset in combinations(range(group.shape[1]), size)
    }
    return np.array(sorted(smallest))


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.permutations(range(n)), min_size=1, max_size=2)))
@settings(max_examples=40, deadline=None)
def test_representatives_equal_brute_force_and_burnside(generators):
    group = closure(generators)
    n_sites = group.shape[1]
    expected = n_unique_subsets(group)
    assert expected[0] == expected[n_sites] == 1
    for size in range(1, n_sites + 1):
        found = unique_subsets(group, size, max_subsets=1000, rng=np.random.default_rng(0))
        np.testing.assert_array_equal(found, classes_by_brute_force(group, size))
        assert len(found) == expected[size]


def test_necklaces_of_eight_beads():
    """Two-colour necklaces and bracelets with 4 of 8 beads coloured: 10 and 8 (OEIS A005648)."""
    rotation = tuple((i + 1) % 8 for i in range(8))
    mirror = tuple(7 - i for i in range(8))
    assert n_unique_subsets(closure([rotation]))[4] == 10
    assert n_unique_subsets(closure([rotation, mirror]))[4] == 8


def test_pairs_of_sixty_sites_need_more_than_one_word():
    rotations = np.array([[(i + shift) % 60 for i in range(60)] for shift in range(60)])
    pairs = unique_subsets(rotations, 2, max_subsets=1000, rng=np.random.default_rng(0))
    assert pairs.tolist() == [[0, distance] for distance in range(1, 31)]


def test_too_many_subsets_are_drawn_by_seed():
    rotations = np.array([[(i + shift) % 24 for i in range(24)] for shift in range(24)])
    n_classes = n_unique_subsets(rotations)[12]
    assert n_classes > ENUMERATION_LIMIT
    first = unique_subsets(rotations, 12, max_subsets=50, rng=np.random.default_rng(1))
    again = unique_subsets(rotations, 12, max_subsets=50, rng=np.random.default_rng(1))
    other = unique_subsets(rotations, 12, max_subsets=50, rng=np.random.default_rng(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (50, 12)
    assert not np.array_equal(first, other)
    assert len(np.unique(canonical_subsets(rotations, first), axis=0)) == 50


@pytest.mark.parametrize("size", [0, 4])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="between 1 and the number of sites, 3"):
        unique_subsets(np.array([[0, 1, 2]]), size, max_subsets=1, rng=np.random.default_rng(0))


@given(st.integers(2, 6).flatmap(lambda n: st.lists(st.permutations(range(n)), min_size=1, max_size=2)))
@settings(max_examples=40, deadline=None)
def test_unions_of_orbits_are_the_subsets_that_the_group_leaves_in_place(generators):
    group = closure(generators)
    n_sites = group.shape[1]
    for size in range(1, n_sites + 1):
        fixed = [
            s for s in combinations(range(n_sites), size) if all(set(p[list(s)].tolist()) == set(s) for p in group)
        ]
        found = orbit_unions(group, size, max_subsets=1000)
        assert [tuple(row) for row in found.tolist()] == fixed
        assert n_orbit_unions(group)[size] == len(fixed)


def test_whole_orbits_are_not_lost_where_subsets_are_drawn():
    """Half of forty sites in two orbits of twenty: one of 10^11 subsets each."""
    shift = np.array([[(i + s) % 20 + 20 * (i // 20) for i in range(40)] for s in range(20)])
    found = unique_subsets(shift, 20, max_subsets=10, rng=np.random.default_rng(0))
    assert len(found) == 10
    assert {tuple(range(20)), tuple(range(20, 40))} <= {tuple(row) for row in found.tolist()}


def test_no_union_is_looked_for_where_none_can_be():
    """Forty orbits of two sites have 2^40 unions, none of an odd number."""
    sites = np.arange(80)
    pairs = np.stack([sites, sites ^ 1])
    assert orbit_unions(pairs, 41, max_subsets=10).shape == (0, 41)
    assert len(orbit_unions(pairs, 40, max_subsets=10)) == 10
