"""Public and embedded tables of known crystals, and the hash split that every data set shares."""

from opengnome.datasets.known import (
    EMBEDDED,
    KnownSet,
    KnownSetSettings,
    load_elemental_crystals,
    load_embedded_frames,
    load_known_set,
)
from opengnome.datasets.splits import hash_bucket, held_out_mask, is_train

__all__ = [
    "EMBEDDED",
    "KnownSet",
    "KnownSetSettings",
    "hash_bucket",
    "held_out_mask",
    "is_train",
    "load_elemental_crystals",
    "load_embedded_frames",
    "load_known_set",
]
