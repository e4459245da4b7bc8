"""Correction schemes by name, for settings files and command lines."""

from typing import get_args

from opengnome.errors import SettingsError
from opengnome.hull.corrections import GNOME_PSEUDOPOTENTIALS, CorrectionScheme, NoCorrection, combined
from opengnome.hull.mp2020 import MP2020, StrictAnions

_OPTIONS = {"one_oxide": {"distinguishes_oxides": False}, "no_mixing": {"mixes_hubbard_u": False}}


def correction_scheme(name: str, *, check_potentials: bool = True) -> CorrectionScheme:
    """The scheme of a name: ``none``, ``MP2020``, ``GNoME-pseudopotentials-2024-11``, or several joined by ``+``.

    ``MP2020`` is short for ``MP2020:require_bound``; other options follow after the colon, joined by commas:
    ``require_exact``, ``no_check``, ``one_oxide``, ``no_mixing``. A scheme's own `name` gives the scheme back.
    `check_potentials` as in `MP2020`. Raises `SettingsError` for an unknown name or option.
    """
    return combined(*(_single(part.strip(), check_potentials=check_potentials) for part in name.split("+")))


def _single(name: str, *, check_potentials: bool) -> CorrectionScheme:
    if name == GNOME_PSEUDOPOTENTIALS.name:
        return GNOME_PSEUDOPOTENTIALS
    if name == "none":
        return NoCorrection()
    base, _, options = name.partition(":")
    if base != "MP2020":
        raise SettingsError(
            f"there is no correction scheme {name!r}; choose from none, MP2020, {GNOME_PSEUDOPOTENTIALS.name}, or join "
            "several with +"
        )
    return _mp2020(options, check_potentials=check_potentials)


def _mp2020(options: str, *, check_potentials: bool) -> MP2020:
    modes = {mode: mode for mode in get_args(StrictAnions)}
    strict_anions: StrictAnions = "require_bound"
    flags: dict[str, bool] = {}
    for option in filter(None, options.split(",")):
        if option in modes:
            strict_anions = modes[option]
        elif option in _OPTIONS:
            flags |= _OPTIONS[option]
        else:
            raise SettingsError(f"MP2020 has no option {option!r}; choose from {', '.join([*modes, *_OPTIONS])}")
    return MP2020(strict_anions=strict_anions, check_potentials=check_potentials, **flags)
