"""Settings: frozen pydantic models that refuse unknown keys and name the nearest known one.

A package keeps its settings beside its code as subclasses of `Settings`; `load` reads a TOML (or YAML)
file, `--set section.key=value` overrides it.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from opengnome.errors import SettingsError


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys refused, defaults validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, data: Any) -> Any:
        """A section that is given in part keeps the other defaults of its field, which may differ from its class's."""
        if not isinstance(data, Mapping):
            return data
        completed = dict(data)
        for name, field in cls.model_fields.items():
            given = completed.get(name)
            if isinstance(given, Mapping) and field.annotation is type(field.default):
                completed[name] = {**field.default.model_dump(exclude_unset=True), **given}
        return completed


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

S = TypeVar("S", bound=Settings)


def load(model: type[S], path: Path | None = None, overrides: Iterable[str] = ()) -> S:
    """Settings of type `model` from a TOML or YAML file, then ``section.key=value`` overrides.

    Raises `SettingsError` when the file cannot be read, a key is unknown (the nearest known key is named),
    or a value is out of range.
    """
    data = {} if path is None else read_file(path)
    for override in overrides:
        _apply_override(data, override)
    return validate(model, data)


def validate(model: type[S], data: dict[str, Any]) -> S:
    """Check `data` against `model`; raises `SettingsError` with one line per mistake."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise SettingsError("; ".join(lines)) from None


def read_file(path: Path) -> dict[str, Any]:
    """A TOML (`.toml`) or YAML (`.yaml`, `.yml`) file as nested dictionaries."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"the settings file {path} is not UTF-8 text: {error}") from None
    if path.suffix in (".yaml", ".yml"):
        return _read_yaml(path, text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None


def to_toml(settings: Settings) -> str:
    """Write settings as TOML (scalars, lists of scalars, and nested tables), the form `load` reads."""
    lines: list[str] = []
    _write_table(settings.model_dump(mode="json", exclude_none=True), (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _read_yaml(path: Path, text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path} must hold keys and values, got a {type(data).__name__}")
    return data


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise SettingsError(f"{override!r} is not an override; write section.key=value")
    *sections, name = key.strip().split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise SettingsError(f"{override!r}: {section!r} is a value, not a section")
    try:
        data[name] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        data[name] = text.strip()  # an unquoted word is a string


def _explain(model: type[Settings], problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{location}: {problem['msg']}, got {problem.get('input')!r}"
    known = _known_keys(model, problem["loc"][:-1])
    nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.0)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"{location} is not a setting{hint} (known: {', '.join(known)})"


def _known_keys(model: type[Settings], sections: Iterable[Any]) -> list[str]:
    current: Any = model
    for section in sections:
        field = current.model_fields.get(section) if hasattr(current, "model_fields") else None
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return sorted(current.model_fields) if current is not None else []


def _write_table(data: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    scalars = {k: v for k, v in data.items() if not isinstance(v, dict)}
    if path and (scalars or not data):
        lines += ["", f"[{'.'.join(map(_toml_key, path))}]"]
    lines += [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in scalars.items()]
    for key, value in data.items():
        if isinstance(value, dict):
            _write_table(value, (*path, key), lines)


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False)  # a JSON string is a TOML basic string
