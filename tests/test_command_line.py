"""What a user meets first: help, mistakes, start-up time of the front door."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from opengnome import cli

COMMANDS = ("discover", "status", "report", "train", "predict", "hull", "generate", "dedup", "relax")


def opengnome(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "opengnome", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    result = opengnome("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command: str) -> None:
    result = opengnome(command, "--help")
    assert result.returncode == 0
    assert f"opengnome {command}" in " ".join(result.stdout.split())


def test_a_wrong_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    settings = tmp_path / "wrong.toml"
    settings.write_text("[rounds]\nbugdet = 5\n")
    result = opengnome("discover", str(tmp_path / "campaign"), "--settings", str(settings))
    assert result.returncode == 2
    assert "did you mean 'budget'" in result.stderr
    assert not (tmp_path / "campaign").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["discover", "{tmp}/none", "--resume"], "no campaign to resume"),
        (["status", "{tmp}"], "holds no campaign"),
        (["discover", "{tmp}/c", "--set", "rounds.budget=-1"], "rounds.budget"),
        (["discover", "{tmp}/c", "--set", "known.source=nowhere.parquet"], "neither 'embedded' nor a file"),
        (["discover", "{tmp}/c", "--set", "oracle.name=quantum"], "oracle.name"),
        (["discover", "{tmp}/c", "--set", "oracle.name=vasp"], "there is no executable 'vasp_std'"),
        (["predict", "{tmp}", "--model", "{tmp}"], "no "),
        (["hull", "{tmp}/nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = opengnome(*(a.format(tmp=tmp_path) for a in arguments))
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, opengnome; print([m for m in ('torch', 'pymatgen', 'ase', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_does_not_import_torch() -> None:
    code = "import sys, opengnome.cli; print('torch' in sys.modules, 'pymatgen' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "shards/00001.parquet"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors has it
    ],
)
def test_a_full_disk_is_one_line_with_the_remedy(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("opengnome: cannot write: ")
    assert "No space left" in told
    assert "make room there" in told


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError, match="No such file"):
        cli.main()
