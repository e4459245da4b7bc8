"""Any ASE calculator as an oracle, named by its import path."""

import importlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from typing import Any

from opengnome.crystals.crystal import Crystal
from opengnome.errors import OracleSetupError
from opengnome.oracles.oracle import Calculation, OracleIdentity
from opengnome.oracles.relaxation import relax_with_calculator
from opengnome.oracles.settings import OracleSettings


class AseOracle:
    """Relaxes crystals with the calculator that ``module:callable`` gives; a new calculator per crystal."""

    def __init__(self, settings: OracleSettings) -> None:
        path = settings.calculator or ""
        factory = import_callable(path)
        self.settings = settings
        self.identity = OracleIdentity(
            name="ase",
            code=path,
            version=_version(factory),
            level=settings.level or _level(path, settings.calculator_options),
            settings_digest=settings.relaxation.digest,
        )
        # found out now and not at the first crystal: a calculator that cannot be made fails every crystal
        self._make_calculator()

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Nothing: ASE's calculators do not tell which elements they know."""

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal; see `relaxation.relax_with_calculator`."""
        return relax_with_calculator(
            crystal, self._make_calculator, settings=self.settings.relaxation, identity=self.identity
        )

    def _make_calculator(self) -> Any:
        path = self.settings.calculator or ""
        try:
            return import_callable(path)(**self.settings.calculator_options)
        except Exception as error:  # whatever the calculator's constructor throws is a broken set-up
            raise OracleSetupError(
                f"{path} cannot make a calculator from calculator_options = "
                f"{self.settings.calculator_options}: {type(error).__name__}: {error}"
            ) from error


def import_callable(path: str) -> Callable[..., Any]:
    """The object at ``module:name``.

    Raises `OracleSetupError` when the path has another form, the module cannot be imported, or the name is
    not a callable in it.
    """
    module_name, separator, name = path.partition(":")
    if not (module_name and separator and name):
        raise OracleSetupError(f'calculator = "{path}" must be "module:callable", e.g. "ase.calculators.emt:EMT"')
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise OracleSetupError(f"calculator = {path!r}: {error}; is its package installed?") from error
    target = getattr(module, name, None)
    if not callable(target):
        raise OracleSetupError(f"calculator = {path!r}: the module {module_name} has no callable {name!r}")
    return target


def _level(path: str, options: dict[str, Any]) -> str:
    return f"{path} {json.dumps(options, sort_keys=True, default=str)}" if options else path


def _version(factory: Callable[..., Any]) -> str:
    """Version of the distribution that holds the callable; empty for a loose module."""
    package = (getattr(factory, "__module__", None) or "").partition(".")[0]
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
