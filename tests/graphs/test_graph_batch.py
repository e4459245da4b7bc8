"""Graph batches: joining; segment sums; distance features."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal
from opengnome.errors import InvalidCrystalError
from opengnome.graphs import (
    build_batch,
    distances,
    gaussian_features,
    neighbour_list,
    segment_sum,
)


def random_crystal(rng: np.random.Generator) -> Crystal:
    n_atoms = int(rng.integers(1, 5))
    lattice = np.diag(rng.uniform(3.0, 9.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    return Crystal(lattice, rng.uniform(0, 1, (n_atoms, 3)), rng.integers(1, 90, n_atoms))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_batch_holds_every_crystal_and_no_edge_between_them(seed: int, n_crystals: int):
    rng = np.random.default_rng(seed)
    crystals = [random_crystal(rng) for _ in range(n_crystals)]
    graphs = build_batch(crystals, cutoff=4.0)
    assert torch.equal(graphs.graph_of_node[graphs.senders], graphs.graph_of_node[graphs.receivers])
    assert graphs.node_counts.tolist() == [c.n_atoms for c in crystals]
    expected = [np.sort(neighbour_list(c, 4.0)[3]) for c in crystals]
    assert graphs.edge_counts.tolist() == [len(e) for e in expected]
    found = distances(graphs)
    for index, lengths in enumerate(expected):
        np.testing.assert_allclose(np.sort(found[graphs.graph_of_edge == index].numpy()), lengths, atol=1e-9)


def test_graph_without_edges(rock_salt: Crystal):
    lonely = Crystal(np.eye(3) * 20.0, np.zeros((1, 3)), np.array([2]))
    graphs = build_batch([lonely, rock_salt, lonely], cutoff=4.0)
    assert graphs.edge_counts.tolist()[0] == graphs.edge_counts.tolist()[2] == 0


def test_empty_batch_is_refused():
    with pytest.raises(InvalidCrystalError, match="at least one crystal"):
        build_batch([], cutoff=4.0)


def test_segments_against_a_loop():
    rng = np.random.default_rng(0)
    values, index = rng.normal(size=(20, 3)), rng.integers(0, 5, 20)
    index[index == 2] = 3  # segment 2 is empty
    total = segment_sum(torch.from_numpy(values), torch.from_numpy(index), 6).numpy()
    for segment in range(6):
        rows = values[index == segment]
        np.testing.assert_allclose(total[segment], rows.sum(axis=0), atol=1e-12)


def test_gaussian_features_follow_the_formula_without_denormals():
    lengths = torch.linspace(0.3, 8.0, 500)
    features = gaussian_features(lengths)
    assert features.shape == (500, 30)
    centres = np.linspace(0.05, 4.0, 30)
    expected = np.exp(-((lengths.double().numpy()[:, None] - centres) ** 2) / 0.5**2)
    np.testing.assert_allclose(features.numpy(), expected, rtol=1e-4, atol=1e-7)
    nonzero = features[features != 0]
    assert nonzero.min() >= torch.finfo(torch.float32).tiny
    assert (features == 0).any()  # the far distances would be denormal
