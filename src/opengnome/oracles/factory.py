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
    if settings.name == "gpaw":
        from opengnome.oracles.gpaw_oracle import GpawOracle

        return GpawOracle(settings.gpaw, settings.relaxation)
    if settings.name == "vasp":
        from opengnome.oracles.vasp import VaspOracle

        return VaspOracle(settings.vasp, settings.relaxation)
    if settings.name == "espresso":
        from opengnome.oracles.espresso import EspressoOracle

        return EspressoOracle(settings.espresso, settings.relaxation)
    from opengnome.oracles.recorded import RecordedOracle

    return RecordedOracle(settings)
