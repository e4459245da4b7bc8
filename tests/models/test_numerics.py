import numpy as np
import torch

from opengnome.models.numerics import numerics


def denormals_vanish() -> bool:
    return bool(np.float64(1e-308) * np.float64(0.1) == 0.0)


def test_denormals_are_flushed_inside_and_only_inside() -> None:
    assert not denormals_vanish()
    with numerics(threads=1):
        assert denormals_vanish()
        with numerics(threads=1):
            pass
        assert denormals_vanish(), "an inner block keeps what the outer one asked for"
    assert not denormals_vanish()


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with numerics(threads=1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
