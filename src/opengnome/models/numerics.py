"""How torch computes while a model is trained or asked: threads, denormal numbers, memory."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
_KEEP = 1 << 30
_STEP = 1 << 28


@contextmanager
def numerics(*, threads: int) -> Iterator[None]:
    """Use `threads` threads and flush denormal numbers to zero; both are restored.

    The tails of Gaussian distance features are denormal, and arithmetic on denormals is several times slower.
    One thread makes results reproducible; two on a busy machine are far slower than one.
    """
    keep_freed_memory()
    before, flushed = torch.get_num_threads(), _denormals_are_flushed()
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


@cache
def keep_freed_memory() -> bool:
    """Let the allocator of glibc keep freed memory for the next array; whether it did.

    By default it returns every large array to the system and gets it back page by page, zeroed: a quarter of the
    time of a training step. Other systems' allocators are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_M_MMAP_THRESHOLD, _KEEP), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _STEP))
    return all(mallopt(option, value) == 1 for option, value in options)


def _denormals_are_flushed() -> bool:
    """Torch does not tell, arithmetic does: half of the smallest normal number is a denormal."""
    return bool(np.finfo(np.float64).smallest_normal * np.float64(0.5) == 0.0)
