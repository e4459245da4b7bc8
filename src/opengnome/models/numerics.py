"""How torch computes while a model is trained or asked: threads and denormal numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def numerics(*, threads: int) -> Iterator[None]:
    """Use `threads` threads and flush denormal numbers to zero; both are restored.

    The tails of Gaussian distance features are denormal, and arithmetic on denormals is several times slower.
    One thread makes results reproducible; two on a busy machine are far slower than one.
    """
    before, flushed = torch.get_num_threads(), _denormals_are_flushed()
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


def _denormals_are_flushed() -> bool:
    """Torch does not tell, arithmetic does: half of the smallest normal number is a denormal."""
    return bool(np.finfo(np.float64).smallest_normal * np.float64(0.5) == 0.0)
