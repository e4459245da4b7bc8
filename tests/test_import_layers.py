"""The import rule: a package imports only packages on lower lines, never a sibling."""

import ast
from pathlib import Path

import pytest

import opengnome

ROOT = Path(opengnome.__file__).parent
LAYERS = (  # low to high, as printed in the README
    ("errors",),
    ("units", "settings"),
    ("crystals",),
    ("generation", "graphs", "hull", "oracles"),
    ("datasets", "models"),
    ("campaign",),
    ("report",),
    ("cli",),
)
LAYER_OF = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imported_packages(source: str) -> set[str]:
    """Top-level packages of opengnome that a module imports, at its top or inside functions."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("opengnome.")}


def violations(root: Path) -> list[str]:
    wrong = []
    for file in sorted(root.rglob("*.py")):
        importer = file.relative_to(root).parts[0].removesuffix(".py")
        if importer in ("__init__", "__main__"):
            continue
        wrong += [
            f"{file.relative_to(root)} imports opengnome.{imported}"
            for imported in sorted((imported_packages(file.read_text()) & LAYER_OF.keys()) - {importer})
            if LAYER_OF[imported] >= LAYER_OF[importer]
        ]
    return wrong


def test_packages_import_only_lower_layers() -> None:
    assert not violations(ROOT), "\n".join(violations(ROOT))


def test_every_package_has_a_layer() -> None:
    packages = {
        p.name.removesuffix(".py") for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert packages - {"__init__", "__main__"} == set(LAYER_OF)


@pytest.mark.parametrize(
    ("importer", "statement"),
    [("hull", "from opengnome.graphs import graph"), ("crystals", "import opengnome.models.structural")],
)
def test_the_rule_finds_siblings_and_upward_imports(tmp_path: Path, importer: str, statement: str) -> None:
    package = tmp_path / importer
    package.mkdir()
    (package / "bad.py").write_text(statement + "\n")
    assert len(violations(tmp_path)) == 1


def test_readme_prints_this_chain() -> None:
    chain = " < ".join(" | ".join(layer) for layer in LAYERS)
    assert chain in (ROOT.parents[1] / "README.md").read_text()
