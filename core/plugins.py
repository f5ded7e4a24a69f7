"""Plug-ins by file: `compressors/head_pruning.py` is the method `head-pruning`.

A plug-in's card (summary, options, constants, metrics) is read from its source, not by importing
it, so that listing plug-ins needs no torch and answers at once. Files that begin with an
underscore are shared parts, not plug-ins.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import InputError, closest
from core.metric import Metric

KINDS = {"method": "compressors", "profiler": "profilers", "task": "tasks"}


@dataclass(frozen=True)
class Option:
    """A field of a plug-in's class that users may set: `name[option=value]`."""

    name: str
    kind: str
    default: Any
    about: str = ""
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """The value that the text stands for.

        Raises:
            InputError: the text is not of this option's kind or not among its choices.
        """
        try:
            if self.choices and text not in self.choices:
                raise ValueError
            if self.kind == "bool":
                return {"true": True, "yes": True, "1": True, "false": False, "no": False,
                        "0": False}[text.lower()]  # fmt: skip
            return {"int": int, "float": float}.get(self.kind, str)(text)
        except (ValueError, KeyError):
            expected = " or ".join(map(repr, self.choices)) if self.choices else f"a {self.kind}"
            raise InputError(f"option {self.name}={text!r}: expected {expected}") from None


@dataclass(frozen=True)
class Card:
    """What can be said of a plug-in without running it."""

    kind: str
    name: str
    summary: str
    about: str
    options: tuple[Option, ...]
    constants: dict[str, Any] = field(hash=False)
    metrics: tuple[Metric, ...]
    source_hash: str

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Values of options by the name of a preset; the defaults are no part of it."""
        return self.constants.get("presets", {})

    def preset(self, name: str) -> dict[str, Any]:
        """The options that a preset sets, none for the defaults."""
        return self.presets.get(name, {})

    def read_options(
        self, pairs: dict[str, str], preset: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Typed option values from their texts, without those that equal the preset's."""
        known = {option.name: option for option in self.options}
        values = {}
        for name, text in pairs.items():
            if name not in known:
                listing = ", ".join(known) or "none"
                raise InputError(
                    f"{self.kind} {self.name!r} has no option {name!r}{closest(name, known)}; "
                    f"its options: {listing}"
                )
            value = known[name].read(text)
            if value != (preset or {}).get(name, known[name].default):
                values[name] = value
        return values


def folder(kind: str) -> Path:
    """Where the plug-ins of that kind live (found without importing the package)."""
    spec = find_spec(KINDS[kind])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"package {KINDS[kind]!r} is not installed")
    return Path(spec.origin).parent


def names(kind: str) -> list[str]:
    """All plug-ins of that kind, sorted."""
    files = folder(kind).glob("*.py")
    return sorted(f.stem.replace("_", "-") for f in files if not f.stem.startswith("_"))


def check(kind: str, name: str) -> str:
    """The name itself where such a plug-in exists.

    Raises:
        InputError: there is none; the sentence proposes the closest name.
    """
    known = names(kind)
    if name not in known:
        raise InputError(
            f"unknown {kind} {name!r}{closest(name, known)}; known: {', '.join(known)}"
        )
    return name


def groups(kind: str) -> dict[str, list[str]]:
    """Names by the groups that plug-ins say they are in; `all` has every one."""
    found: dict[str, list[str]] = {"all": names(kind)}
    for name in names(kind):
        for group in card(kind, name).constants.get("groups", ()):
            found.setdefault(group, []).append(name)
    return found


def select(kind: str, wanted: str) -> list[str]:
    """Names from a comma list of names and groups, each once; `none` stands for no one.

    Raises:
        InputError: there is no such name or group; the sentence proposes the closest one.
    """
    if wanted == "none":
        return []
    known = groups(kind) | {name: [name] for name in names(kind)}
    chosen: list[str] = []
    for part in (part.strip() for part in wanted.split(",") if part.strip()):
        if part not in known:
            raise InputError(
                f"unknown {kind} {part!r}{closest(part, known)}; known: {', '.join(known)}"
            )
        chosen += known[part]
    return list(dict.fromkeys(chosen))


def load(kind: str, name: str) -> type:
    """The plug-in's class (imports its module).

    Raises:
        InputError: no plug-in has that name.
    """
    card(kind, name)  # which refuses a name that nothing has
    module = importlib.import_module(f"{KINDS[kind]}.{name.replace('-', '_')}")
    wanted = name.replace("-", "")
    for value in vars(module).values():
        if isinstance(value, type) and value.__name__.lower() == wanted:
            return value
    raise AssertionError(f"{module.__name__} defines no class named like {name!r}")


@cache
def card(kind: str, name: str) -> Card:
    """Read a plug-in's card from its source."""
    path = folder(kind) / f"{check(kind, name).replace('-', '_')}.py"
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    wanted = name.replace("-", "")
    body = next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.lower() == wanted
    )
    about = ast.get_docstring(tree) or ""
    options, constants = _fields(body, tree, source, path.parent)
    metrics = []
    for value in constants.values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Metric):
                metrics.append(part)
    return Card(
        kind, name, about.split("\n", 1)[0], about, tuple(options.values()), constants,
        tuple(metrics), _source_hash(source, path.parent),
    )  # fmt: skip


def _fields(
    body: ast.ClassDef, tree: ast.Module, source: str, folder: Path
) -> tuple[dict[str, Option], dict[str, Any]]:
    """Options and constants of a class by name, with those that it inherits from shared parts."""
    options: dict[str, Option] = {}
    constants: dict[str, Any] = {}
    for base in reversed(body.bases):
        inherited = _inherited(base, tree, source, folder)
        options |= inherited[0]
        constants |= inherited[1]
    lines = source.splitlines()
    own: dict[str, Any] = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            name = ast.unparse(node.target)
            if "ClassVar" not in ast.unparse(node.annotation):
                options[name] = _option(node, lines[node.lineno - 1])
            elif name == "presets":
                own[name] = constants.get(name, {}) | _literal(node.value)
            else:
                own[name] = _literal(node.value)
        elif isinstance(node, ast.Assign):
            own[ast.unparse(node.targets[0])] = _literal(node.value)
    # In the order of the class itself: a task's first metric is the first that it declares.
    return options, {k: v for k, v in constants.items() if k not in own} | own


def _inherited(
    base: ast.expr, tree: ast.Module, source: str, folder: Path
) -> tuple[dict[str, Option], dict[str, Any]]:
    """What a base class gives that stands in this file or in a shared part of the folder."""
    name = ast.unparse(base)
    files = [
        folder / f"{node.module.rpartition('.')[2]}.py"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module.startswith(f"{folder.name}._")
        and name in [alias.name for alias in node.names]
    ]
    if files:
        source = files[0].read_text(encoding="utf-8")
        tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _fields(node, tree, source, folder)
    return {}, {}


def _source_hash(source: str, folder: Path) -> str:
    """Changes with the plug-in's file and with the parts that it shares with its neighbours."""
    state = hashlib.blake2b(source.encode(), digest_size=8)
    for shared in sorted(folder.glob("_*.py")):
        state.update(shared.read_bytes())
    return state.hexdigest()


def _option(node: ast.AnnAssign, line: str) -> Option:
    annotation, choices = ast.unparse(node.annotation), ()
    if annotation.startswith("Literal["):
        choices = tuple(ast.literal_eval(annotation[len("Literal") :]))
        annotation = "str"
    about = line.split("# ", 1)[1].strip() if "# " in line else ""
    assert node.value is not None
    return Option(ast.unparse(node.target), annotation, _literal(node.value), about, choices)


def _literal(node: ast.expr) -> Any:
    """The value of a literal expression or of `Metric(...)` with literal arguments, else None."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Metric":
        keywords = {k.arg: _literal(k.value) for k in node.keywords if k.arg}
        return Metric(*map(_literal, node.args), **keywords)
    if isinstance(node, ast.Tuple):
        return tuple(map(_literal, node.elts))
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
