"""The page of one or more runs: a single HTML file with all that it shows, and no network.

`page.html` is its frame, `page.css` its looks. Each script but the last fills one part of it from
the content, and `page.js` joins them. Made again from the same records, it is the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from core.errors import InputError
from reports.html.content import content
from results.store import write_whole

#: The bundle with the traces that the chart has; the whole of plotly.js takes a second to start.
PLOTLY = "plotly-basic.min.js"

SCRIPTS = ("record.js", "table.js", "chart.js", "lists.js", "choices.js", "page.js")

_HERE = Path(__file__).parent


def write(run_folders: Sequence[str | Path], out: str | Path) -> int:
    """Write the page of one or more runs.

    Returns:
        How many points it shows.

    Raises:
        InputError: a folder holds no run, the runs have no point, or the file does not end in .html
            or cannot be written.
    """
    if Path(out).suffix != ".html":
        raise InputError(f"page {str(out)!r}: expected a file ending in .html")
    told = content(run_folders)
    write_whole(Path(out), _page(told).encode())
    return len(told["points"])


def _page(told: dict[str, Any]) -> str:
    """The frame with its parts; what is put in is not searched for further parts."""
    parts = {
        "title": escape(", ".join(run["name"] for run in told["runs"])),
        "style": _source("page.css"),
        "content": _json(told),
        "script": "\n".join(map(_source, SCRIPTS)),
        "plotly": _source(PLOTLY),
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], _source("page.html"))


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _json(told: dict[str, Any]) -> str:
    """JSON that no text in it can end: without `<` there is neither `</script>` nor `<!--`."""
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
