"""What a crystal looks like to a network: neighbours, graph batches, segment sums, distance features."""

from opengnome.graphs.cache import cached_store
from opengnome.graphs.features import gaussian_features
from opengnome.graphs.graph import GraphBatch, build_batch, displacements, distances, join
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM, Neighbours, neighbour_list
from opengnome.graphs.orbit_batch import OrbitBatch, as_batch, batch_of, perturbed, scaled
from opengnome.graphs.orbits import OrbitGraph, nearest_distances, orbit_graph, reduced_graph
from opengnome.graphs.segment import segment_sum
from opengnome.graphs.store import GraphStore, build_store, joined, store_of

__all__ = [
    "MAX_NEIGHBOURS_PER_ATOM",
    "GraphBatch",
    "GraphStore",
    "Neighbours",
    "OrbitBatch",
    "OrbitGraph",
    "as_batch",
    "batch_of",
    "build_batch",
    "build_store",
    "cached_store",
    "displacements",
    "distances",
    "gaussian_features",
    "join",
    "joined",
    "nearest_distances",
    "neighbour_list",
    "orbit_graph",
    "perturbed",
    "reduced_graph",
    "scaled",
    "segment_sum",
    "store_of",
]
