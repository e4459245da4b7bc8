"""Sums of rows that share an index.

`index_add` is the fastest aggregation with a gradient on one CPU core (1.1 to 2.1 times the alternatives
`scatter_add`, `scatter_reduce`, `segment_reduce` and sparse products at widths 64 to 256).
"""

from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, n_segments: int) -> Tensor:
    """Sum of the rows of `values` (n, ...) with the same `index` (n,); shape (n_segments, ...)."""
    return values.new_zeros((n_segments, *values.shape[1:])).index_add(0, index, values)
