"""The examples of `docs/hull.md` are run as they stand, and say what the page says."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opengnome.cli import app
from opengnome.datasets import FORMATS
from opengnome.errors import OpenGnomeError

PAGE = (Path(__file__).parents[2] / "docs" / "hull.md").read_text()
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def blocks(kind: str) -> list[tuple[str, str]]:
    """Title and content of the fenced blocks of a kind, in order."""
    return re.findall(rf'^```{kind}(?: title="(.*?)")?\n(.*?)^```', PAGE, flags=re.DOTALL | re.MULTILINE)


def answer(command: str) -> str:
    program, *arguments = shlex.split(command)
    if program == "cat":
        return Path(arguments[0]).read_text()
    assert program == "opengnome", command
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, OpenGnomeError):
        return f"opengnome: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_every_command_of_the_page_answers_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for title, content in blocks("csv") + blocks("json"):
        Path(title).write_text(content)
    n_commands = 0
    for _, content in blocks("console"):
        for command, expected in re.findall(r"^\$ (.*?)\n(.*?)(?=^\$ |\Z)", content, flags=re.DOTALL | re.MULTILINE):
            n_commands += 1
            printed, got = expected.strip().splitlines(), answer(command).strip().splitlines()
            assert len(got) == len(printed), command
            for line, own in zip(printed, got, strict=True):
                # Words to the letter, numbers to what is printed: the last digits are rounding.
                assert NUMBER.sub("#", own) == NUMBER.sub("#", line), command
                numbers = [float(n) for n in NUMBER.findall(line)]
                assert [float(n) for n in NUMBER.findall(own)] == pytest.approx(numbers, abs=1e-8), command
    assert n_commands == 6
    assert Path("hull.svg").stat().st_size > 1000
    assert Path("potentials.html").stat().st_size > 1000


def test_the_python_of_the_page_imports_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = (content for _, content in blocks("python"))
    for content in (first, *others):
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), node.module
    (title, table), *_ = blocks("csv")
    Path(title).write_text(table)
    names: dict[str, object] = {}
    exec(compile(first, "hull.md", "exec"), names)
    assert len(names["rows"]) == 4  # type: ignore[arg-type]


def test_the_page_names_every_format_and_status() -> None:
    from opengnome.campaign import entry_corrections, stability
    from opengnome.datasets import entry_rows

    statuses = {
        value
        for module in (entry_rows, stability, entry_corrections)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and re.fullmatch("[a-z]+_[a-z_]+|duplicate", value)
    }
    assert len(statuses) == 11
    for word in (*FORMATS, *statuses):
        assert f"| `{word}` |" in PAGE, word
