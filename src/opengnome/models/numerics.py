"""How torch computes while a model is trained or asked: threads and denormal numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def numerics(*, threads: int) -> Iterator[None]:
    """Use `threads` threads and flush denormal numbers to zero; the number of threads is restored.

    Flushing stays on: torch does not tell whether it was on before, and nothing here wants denormals.
    One thread makes results reproducible, and two on a busy machine were up to 23 times slower than one.
    """
    before = torch.get_num_threads()
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
