"""Graphs reduced by symmetry: the counts add up to the full neighbour list, and scaling keeps the topology."""

import numpy as np
import pytest
import torch

from opengnome.crystals import Crystal, supercell, with_volume
from opengnome.errors import InvalidCrystalError
from opengnome.graphs import OrbitGraph, batch_of, neighbour_list, orbit_graph, perturbed, scaled

CUTOFF = 5.0


def expanded_pairs(graph: OrbitGraph) -> list[tuple[int, int, float]]:
    """Every pair of the crystal that the graph stands for: (element, element, distance), sorted."""
    pairs = []
    for sender, receiver, distance, count in zip(
        graph.senders, graph.receivers, graph.distances, graph.counts, strict=True
    ):
        elements = int(graph.atomic_numbers[sender]), int(graph.atomic_numbers[receiver])
        n_pairs = int(count) * int(graph.multiplicities[sender])
        pairs += [(*elements, round(float(distance), 3))] * n_pairs
    return sorted(pairs)


def full_pairs(crystal: Crystal) -> list[tuple[int, int, float]]:
    senders, receivers, _, distances = neighbour_list(crystal, CUTOFF)
    z = crystal.atomic_numbers
    return sorted(
        (int(z[i]), int(z[j]), round(float(d), 3)) for i, j, d in zip(senders, receivers, distances, strict=True)
    )


def same_pairs(a: list[tuple[int, int, float]], b: list[tuple[int, int, float]]) -> None:
    assert [pair[:2] for pair in a] == [pair[:2] for pair in b]
    np.testing.assert_allclose([pair[2] for pair in a], [pair[2] for pair in b], atol=2e-3)


def test_rock_salt_by_hand(rock_salt: Crystal):
    graph = orbit_graph(rock_salt, cutoff=3.0)
    assert graph.n_nodes == 2
    assert graph.multiplicities.sum() == rock_salt.n_atoms
    assert graph.n_edges == 2  # each ion sees six of the other at one distance
    assert graph.counts.tolist() == [6, 6]


def test_counts_add_up_to_the_full_list(rock_salt: Crystal, perovskite: Crystal):
    for crystal in (rock_salt, perovskite, supercell(perovskite, (2, 1, 1))):
        graph = orbit_graph(crystal, cutoff=CUTOFF)
        assert graph.multiplicities.sum() == crystal.n_atoms
        assert graph.n_nodes == len(set(crystal.atomic_numbers.tolist()))
        same_pairs(expanded_pairs(graph), full_pairs(crystal))


def test_a_crystal_without_symmetry_is_its_own_reduction(perovskite: Crystal):
    rng = np.random.default_rng(0)
    moved = Crystal(
        perovskite.lattice + rng.normal(0, 0.1, (3, 3)),
        perovskite.frac_coords + rng.normal(0, 0.02, (5, 3)),
        perovskite.atomic_numbers,
    )
    graph = orbit_graph(moved, cutoff=CUTOFF)
    assert graph.n_nodes == moved.n_atoms
    same_pairs(expanded_pairs(graph), full_pairs(moved))


def test_no_reduction_on_request(perovskite: Crystal):
    graph = orbit_graph(perovskite, cutoff=CUTOFF, reduce=False)
    assert graph.n_nodes == 5
    assert (graph.multiplicities == 1).all()
    same_pairs(expanded_pairs(graph), full_pairs(perovskite))


def test_pairs_are_counted_once_from_each_side(perovskite: Crystal):
    batch = batch_of([orbit_graph(perovskite, cutoff=CUTOFF)])
    one_way = {}
    for s, r, d, c in zip(batch.senders, batch.receivers, batch.distances, batch.counts, strict=True):
        one_way[int(s), int(r), round(float(d), 2)] = float(c)
    for s, r, d, c in zip(batch.senders, batch.receivers, batch.distances, batch.receiver_counts, strict=True):
        assert one_way[int(r), int(s), round(float(d), 2)] == pytest.approx(float(c))


def test_batch_lays_crystals_one_after_another(rock_salt: Crystal, perovskite: Crystal):
    lonely = Crystal(20.0 * np.eye(3), np.zeros((1, 3)), np.array([2]))
    graphs = [orbit_graph(c, cutoff=CUTOFF) for c in (rock_salt, lonely, perovskite)]
    batch = batch_of(graphs)
    assert batch.n_graphs == 3
    assert batch.n_atoms.tolist() == [rock_salt.n_atoms, 1, 5]
    torch.testing.assert_close(torch.zeros(3).index_add(0, batch.graph_of_node, batch.shares), torch.ones(3))
    assert (batch.graph_of_node[batch.senders] == batch.graph_of_node[batch.receivers]).all()
    assert (torch.diff(batch.senders) >= 0).all()
    with pytest.raises(InvalidCrystalError, match="at least one"):
        batch_of([])


def test_scaling_equals_building_anew(perovskite: Crystal, rock_salt: Crystal):
    scales = (0.8, 1.0, 1.2)
    wide = [orbit_graph(c, cutoff=CUTOFF / 0.8 ** (1 / 3)) for c in (perovskite, rock_salt)]
    batch = scaled(batch_of(wide), scales, cutoff=CUTOFF)
    anew = batch_of(
        [
            orbit_graph(with_volume(c, c.volume * scale), cutoff=CUTOFF)
            for scale in scales
            for c in (perovskite, rock_salt)
        ]
    )
    for name in ("atomic_numbers", "multiplicities", "graph_of_node", "senders", "receivers", "counts"):
        assert torch.equal(getattr(batch, name), getattr(anew, name)), name
    torch.testing.assert_close(batch.distances, anew.distances, atol=1e-5, rtol=0)
    assert batch.n_graphs == 6


def test_noise_moves_volumes_and_distances_by_what_was_asked(perovskite: Crystal):
    batch = batch_of([orbit_graph(perovskite, cutoff=CUTOFF)] * 400)

    def logarithms(volume_std: float, distance_std: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        moved = perturbed(batch, volume_std=volume_std, distance_std=distance_std, generator=generator)
        assert torch.equal(moved.senders, batch.senders)
        return torch.log(moved.distances / batch.distances).reshape(400, -1)

    volumes = 3.0 * logarithms(0.06, 0.0)
    assert float(volumes[:, 0].std()) == pytest.approx(0.06, rel=0.15)
    torch.testing.assert_close(volumes, volumes[:, :1].expand_as(volumes), atol=1e-4, rtol=0)
    assert float(logarithms(0.0, 0.02).std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(logarithms(0.06, 0.02), logarithms(0.06, 0.02))
