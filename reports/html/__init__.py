"""The page of one or more runs: a single HTML file with all that it shows, and no network.

`page.html` is its frame, `page.css` its looks. Each script but the last fills one part of it from
the content, and `page.js` joins them. Made again from the same records, it is the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import InputError
from reports.html.content import content
from results.store import write_whole

SCRIPTS = ("record.js", "table.js", "chart.js", "lists.js", "choices.js", "page.js")

_HERE = Path(__file__).parent


def write(run_folders: Sequence[str | Path], out: str | Path) -> int:
    """Write the page of one or more runs.

    Returns:
        How many points it shows.

    Raises:
        InputError: a folder holds no run, the runs have no point, plotly is missing, or the file
            does not end in .html or cannot be written.
    """
    if Path(out).suffix != ".html":
        raise InputError(f"page {str(out)!r}: expected a file ending in .html")
    plotly = _plotly()
    told = content(run_folders)
    write_whole(Path(out), _page(told, plotly).encode())
    return len(told["points"])


def _plotly() -> str:
    """The source of plotly.js, which comes with the Python package of that name."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise InputError("the page needs plotly; install it with: pip install 'plotly>=6'")
    script = Path(found.origin).parent / "package_data" / "plotly.min.js"
    try:
        return script.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot read {script} ({error.strerror}); install plotly again"
        ) from error


def _page(told: dict[str, Any], plotly: str) -> str:
    """The frame with its parts; what is put in is not searched for further parts."""
    parts = {
        "title": escape(", ".join(run["name"] for run in told["runs"])),
        "style": _source("page.css"),
        "content": _json(told),
        "script": "\n".join(map(_source, SCRIPTS)),
        "plotly": plotly,
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], _source("page.html"))


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _json(told: dict[str, Any]) -> str:
    """JSON that no text in it can end: without `<` there is neither `</script>` nor `<!--`."""
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
