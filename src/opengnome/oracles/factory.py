"""From settings to an oracle."""

from opengnome.oracles.oracle import Oracle
from opengnome.oracles.settings import OracleSettings


def make_oracle(settings: OracleSettings) -> Oracle:
    """The oracle that `settings` asks for; cheap to make, picklable, its engine is loaded on first use.

    Raises `OracleSetupError` when the engine is not installed or its calculator or table cannot be found.
    """
    if settings.name == "chgnet":
        from opengnome.oracles.chgnet import ChgnetOracle

        return ChgnetOracle(settings.relaxation)
    if settings.name == "ase":
        from opengnome.oracles.ase_calculator import AseOracle

        return AseOracle(settings)
    from opengnome.oracles.recorded import RecordedOracle

    return RecordedOracle(settings)
