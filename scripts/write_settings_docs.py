"""The page of all settings of a campaign, from their classes.

python scripts/write_settings_docs.py docs/settings.md
"""

import argparse
import inspect
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from opengnome.campaign import CampaignSettings
from opengnome.oracles.settings import MACHINE_SETTINGS
from opengnome.settings import Settings

HEAD = """<!-- written by scripts/write_settings_docs.py; do not edit -->

# Settings of a campaign

`opengnome discover DIR --settings FILE.toml --set section.key=value ...`: a TOML (or YAML) file with the sections
below, and single values on the command line, which win. What is not given keeps its default; an unknown key is
refused, and the nearest known one named. `DIR/settings.toml` has every value that a campaign runs with. Files to
start from are in `examples/`; `src/opengnome/campaign/embedded.toml` is what `opengnome discover DIR` runs without one.

Other commands take parts of it by `--settings` and `--set`: `train` the sections `model` and `training`, `generate` the
keys of `generation` (with `--system` those of `compositions.proposals`, with `--formula` of `compositions.structures`),
`relax` the keys and sections of `oracle`.

**When a campaign is resumed** (the same command, or `--resume` with what changes) everything that its results depend on
must be what it was; another value is refused with both. What may change: `name`, the whole section `execution`,
`rounds.n_rounds` (`--resume --set rounds.n_rounds=6` adds rounds to a finished campaign), `known.source` where the same
table lies elsewhere, and of the oracle where and how it runs: {machine}.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.parse_args().page.write_text(page())


def page() -> str:
    """The whole page."""
    names = sorted(f"`oracle.{engine}.{key}`" for engine, keys in MACHINE_SETTINGS.items() for key in keys)
    lines = [HEAD.format(machine=", ".join(names))]
    for path, description, model in sections(CampaignSettings, "", ""):
        title = f"`[{path}]`{variant(model)}" if path else "Without a section"
        lines += [f"## {title}", "", description, "", "| key | values | default | meaning |", "|---|---|---|---|"]
        lines += [row(name, field) for name, field in model.model_fields.items() if not models_of(field.annotation)]
        lines.append("")
    return "\n".join(lines)


def sections(model: type[Settings], path: str, told: str) -> Iterator[tuple[str, str, type[Settings]]]:
    """Path, description and class of a section that has keys of its own and of all below it."""
    if any(not models_of(field.annotation) for field in model.model_fields.values()):
        yield path, "\n\n".join(filter(None, (paragraph(inspect.getdoc(model) or ""), told))), model
    for name, field in model.model_fields.items():
        for below in models_of(field.annotation):
            yield from sections(below, f"{path}.{name}".lstrip("."), differences(below, field))


def variant(model: type[Settings]) -> str:
    """What tells the classes apart that a section may be of."""
    field = model.model_fields.get("configuration")
    return "" if field is None else f', configuration = "{field.default}"'


def differences(model: type[Settings], field: FieldInfo) -> str:
    """What is said of a section where it is used, and the defaults that are others there."""
    told = [paragraph(field.description)] if field.description else []
    if isinstance(field.default, model):
        plain = model().model_dump(mode="json")
        own = {k: v for k, v in field.default.model_dump(mode="json").items() if v != plain[k]}
        if own:
            told.append("Here by default: " + ", ".join(f"`{key} = {value(own[key])}`" for key in own) + ".")
    return "\n\n".join(told)


def models_of(annotation: Any) -> list[type[Settings]]:
    """Settings classes that a field holds, alone or in a union."""
    if is_union(annotation) or typing.get_origin(annotation) is typing.Annotated:
        return [found for part in typing.get_args(annotation) for found in models_of(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Settings) else []


def is_union(annotation: Any) -> bool:
    """Whether it is one of several types."""
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


def row(name: str, field: FieldInfo) -> str:
    """The line of a key."""
    default = (
        "needed"
        if field.is_required()
        else ""
        if field.default is None
        else f"`{value(field.get_default(call_default_factory=True))}`"
    )
    return f"| `{name}` | {kind(field)} | {default} | {paragraph(field.description or '')} |"


def value(thing: Any) -> str:
    """As TOML has it."""
    return json.dumps(sorted(thing) if isinstance(thing, frozenset) else thing, default=str, ensure_ascii=False)


def kind(field: FieldInfo) -> str:
    """Type and limits."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in signs.items()
        if hasattr(limit, name)
    ]
    return " ".join([type_name(field.annotation), ", ".join(limits)]).strip()


def type_name(annotation: Any) -> str:
    """Words for a type."""
    words = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", type(None): ""}
    if annotation in words:
        return words[annotation]
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if is_union(annotation):
        return " or ".join(filter(None, dict.fromkeys(map(type_name, arguments))))
    if origin is dict:
        return "table"
    return "list"


def paragraph(text: str) -> str:
    """One line, as a table needs it."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
