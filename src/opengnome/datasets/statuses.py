"""What a column `status` of a table says of the energy beside it."""

from typing import Any

from opengnome.oracles import Status

_UNFINISHED = frozenset(status.value for status in Status) - {Status.CONVERGED.value}


def is_unfinished(status: Any) -> bool:
    """Whether a relaxation ended without converging (`oracles.Status`); any other word is the table's own affair."""
    return status in _UNFINISHED
