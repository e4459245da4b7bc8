"""The oracle that a command is asked for: settings file, then `--oracle` and `--functional`, then `--set`."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from opengnome.errors import SettingsError
from opengnome.oracles import OracleSettings
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.oracles.vasp_settings import VaspSettings
from opengnome.settings import Settings, load, read_file

_FIELDS = OracleSettings.model_fields
_SECTIONS: dict[str, type[Settings]] = {"gpaw": GpawSettings, "vasp": VaspSettings}
"""Oracles with a functional to choose, and the settings that have it."""

ORACLES: tuple[str, ...] = get_args(_FIELDS["name"].annotation)
"""Names of all oracles."""
FUNCTIONALS: dict[str, tuple[str, ...]] = {
    engine: get_args(section.model_fields["functional"].annotation) for engine, section in _SECTIONS.items()
}
"""Names of the functionals of each oracle that has several."""

_OWN_FUNCTIONAL = {
    "chgnet": "was fitted to PBE and PBE+U energies",
    "ase": "has the functional of its calculator (calculator_options)",
    "recorded": "has the functional of its table",
    "espresso": "has the functional of its pseudopotentials (espresso.pseudo_dir)",
}
"""Why the other oracles have none to choose."""


def oracle_settings(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    oracle: str | None = None,
    functional: str | None = None,
) -> OracleSettings:
    """Settings of the oracle `oracle` with `functional`, both written in small or capital letters.

    Of a value given twice the later one holds, in this order: the settings file `path`, the two names, `overrides`
    (``section.key=value``). Raises `SettingsError` when a name is unknown (the message has those that there are),
    the oracle has no functional to choose, or the rest contradicts them.
    """
    flags = []
    if oracle is not None:
        flags.append(f"name={json.dumps(_known(oracle, ORACLES, 'oracle'))}")
    if functional is not None:
        engine = _engine(path, [*flags, *overrides])
        if engine not in FUNCTIONALS:
            raise SettingsError(
                f"the oracle {engine} {_OWN_FUNCTIONAL.get(engine, 'is unknown')}: the functional {functional!r} "
                f"cannot be chosen for it; leave it out, or choose the oracle {' or '.join(FUNCTIONALS)} (--oracle)"
            )
        name = _known(functional, FUNCTIONALS[engine], f"functional of {engine}")
        flags.append(f"{engine}.functional={json.dumps(name)}")
    return load(OracleSettings, path, [*flags, *overrides])


def _known(name: str, known: Sequence[str], what: str) -> str:
    """The name as we write it. Raises `SettingsError` with all known ones."""
    for candidate in known:
        if candidate == name.strip().lower():
            return candidate
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise SettingsError(f"there is no {what} {name!r}{hint} (known: {', '.join(known)})")


def _engine(path: Path | None, overrides: Sequence[str]) -> str:
    """The oracle's name after file and overrides, which `load` checks later."""
    named = None if path is None else read_file(path).get("name")
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip() == "name":
            named = value.strip().strip("\"'")
    return str(_FIELDS["name"].default if named is None else named)
