"""Seeds come from identity (campaign seed, purpose, round, ...), never from order or the clock."""

import hashlib


def seed_for(*identity: str | int) -> int:
    """A 63-bit seed from the parts of an identity, e.g. ``seed_for(settings.seed, "member", 2, 0)``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in identity)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
