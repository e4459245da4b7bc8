"""Where and in which precision torch computes."""

import torch

from opengnome.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """`auto` is the graphics card when there is one; raises `SettingsError` for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device={name!r} is not a device torch knows: {error}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device={name!r}: this torch sees no graphics card; use device='cpu'")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 here."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:  # private to torch; other versions may lack them
        return False
