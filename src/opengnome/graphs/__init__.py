"""What a crystal looks like to a network: neighbours, graph batches, segment sums, distance features."""

from opengnome.graphs.features import gaussian_features
from opengnome.graphs.graph import GraphBatch, build_batch, displacements, distances, join, rescaled, select
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM, Neighbours, neighbour_list
from opengnome.graphs.segment import segment_mean, segment_sum

__all__ = [
    "MAX_NEIGHBOURS_PER_ATOM",
    "GraphBatch",
    "Neighbours",
    "build_batch",
    "displacements",
    "distances",
    "gaussian_features",
    "join",
    "neighbour_list",
    "rescaled",
    "segment_mean",
    "segment_sum",
    "select",
]
