"""Oracles: what answers with a relaxed crystal and its energy. One adapter per engine."""

from opengnome.oracles.factory import make_oracle
from opengnome.oracles.oracle import Calculation, Frames, Oracle, OracleIdentity, Status
from opengnome.oracles.settings import OracleSettings, RelaxationSettings
from opengnome.oracles.store import read_calculation, write_calculation

__all__ = [
    "Calculation",
    "Frames",
    "Oracle",
    "OracleIdentity",
    "OracleSettings",
    "RelaxationSettings",
    "Status",
    "make_oracle",
    "read_calculation",
    "write_calculation",
]
