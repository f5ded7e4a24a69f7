"""The house's rules on imports, held against the source of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: package -> the packages of ours that it may import.
MAY = {
    "core": set(),
    "encoders": {"core"},
    "compressors": {"core", "encoders"},
    "profilers": {"core", "encoders"},
    "tasks": {"core", "encoders"},
    "results": {"core"},
    "reports": {"core", "results"},
    "bench": {"core", "encoders", "compressors", "profilers", "tasks", "results", "reports"},
}
HEAVY = {"torch", "torchaudio", "transformers", "fvcore"}

FILES = sorted(file for package in MAY for file in (ROOT / package).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a source imports anywhere, functions and type checking included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(parsed(file))}


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_the_rules_speak_of_every_package():
    found = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert found == set(MAY)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_imports_run_one_way(file):
    package = file.relative_to(ROOT).parts[0]
    ours = packages(file) & set(MAY)
    assert ours - {package} <= MAY[package]


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.relative_to(ROOT).parts[0] in ("core", "results", "reports")],
    ids=name,
)  # fmt: skip
def test_records_tables_and_figures_need_no_torch(file):
    assert not packages(file) & HEAVY


@pytest.mark.parametrize("file", sorted((ROOT / "core").glob("*.py")), ids=name)
def test_the_core_is_standard_library_alone(file):
    import sys

    assert packages(file) <= {*sys.stdlib_module_names, "core"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_modules_of_one_package_do_not_import_in_circles(file):
    """A module's own package is imported downwards: what it imports does not import it back."""
    module = name(file).removesuffix(".py").replace("/", ".")
    seen: set[str] = set()
    waiting = list(top_level(file))
    while waiting:
        current = waiting.pop()
        assert current != module
        path = ROOT / (current.replace(".", "/") + ".py")
        if current not in seen and path.is_file():
            seen.add(current)
            waiting.extend(top_level(path))


@cache
def top_level(file: Path) -> set[str]:
    """What is imported when the module is; not what functions or type checkers import."""
    statements = [n for n in parsed(file).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return set(imports(ast.Module(statements, [])))
