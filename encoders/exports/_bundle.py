"""The sources of an encoder as one file that imports nothing of ours, to lie beside its weights.

It is put together from the modules themselves, so that there is one description of the encoder.
Left out is what only speeds it up here: oneDNN's kernels, and torchao's, whose products it has by
plain operations.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: In the order in which they build on each other.
MODULES = (
    "core/errors.py",
    "core/spec.py",
    "encoders/exporting.py",
    "encoders/padding.py",
    "encoders/linear.py",
    "encoders/quantized.py",
    "encoders/exports/_integers.py",
    "encoders/positions.py",
    "encoders/front_end.py",
    "encoders/shortening.py",
    "encoders/exits.py",
    "encoders/layer.py",
    "encoders/model.py",
)
_OURS = ("core", "encoders")

_HEAD = '''\
"""A compressed speech encoder. Made by speech-compression-bench from its own sources.

Apache-2.0, as these are.
"""

from __future__ import annotations

'''

#: What stands for `encoders.kernels`, whose names the modules write with its own in front.
_KERNELS = '''

class kernels:
    """Keeps torch's kernels everywhere."""

    LONG, SPARE = 1 << 62, 0

    class Derived:
        """Keeps nothing."""

    @staticmethod
    def apply(*_: Any) -> bool:
        return False
'''

_INTEGERS = "\n\nQuantized._product = multiply\n"


def bundle(*last: str) -> str:
    """The source of `MODULES` and of those modules behind them, paths from the root."""
    imports: set[str] = set()
    parts = [_KERNELS]
    for path in (*MODULES, *last):
        lines, own = _without_imports((ROOT / path).read_text(encoding="utf-8"))
        imports |= own
        parts.append(f"\n\n# {path}\n\n{lines}\n" + _INTEGERS * path.endswith("_integers.py"))
    body = re.sub(r"\n{4,}", "\n\n\n", "".join(parts))
    return _HEAD + "\n".join(sorted(imports)) + body


def _without_imports(source: str) -> tuple[str, set[str]]:
    """A module without docstring and imports, and the imports that are not ours."""
    lines = source.splitlines()
    imports: set[str] = set()
    tree = ast.parse(source)
    for place, node in enumerate(tree.body):
        docstring = place == 0 and isinstance(node, ast.Expr)
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= set(_foreign(node))
        if docstring or isinstance(node, ast.Import | ast.ImportFrom) or _for_checkers(node):
            _drop(lines, node)
    for own in ast.walk(tree):
        if isinstance(own, ast.FunctionDef) and "from torchao" in ast.unparse(own):
            _drop(lines, own, first=min([own.lineno, *(d.lineno for d in own.decorator_list)]))
    return "\n".join(lines).strip("\n"), imports


def _foreign(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Imports of other packages, one line each."""
    if isinstance(node, ast.Import):
        yield from (ast.unparse(ast.Import([alias])) for alias in node.names)
    elif node.module != "__future__" and (node.module or "").split(".")[0] not in _OURS:
        yield from (ast.unparse(ast.ImportFrom(node.module, [a], 0)) for a in node.names)


def _for_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _drop(lines: list[str], node: ast.stmt, first: int | None = None) -> None:
    assert node.end_lineno is not None
    start = (first or node.lineno) - 1
    lines[start : node.end_lineno] = [""] * (node.end_lineno - start)
