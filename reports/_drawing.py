"""What a figure is, and the way from the records of runs to its files.

Drawn from records alone, and the same bytes each time: no dates, no software versions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib import style
from matplotlib.figure import Figure

from core.errors import InputError, closest
from core.point import REFERENCES
from reports._looks import STYLE, Look, appearances
from results.store import RunFolder, write_whole
from results.table import labels, load

if TYPE_CHECKING:
    from pandas import DataFrame

FORMATS = ("png", "pdf", "svg")

#: Without dates and versions, a figure drawn again is the same file.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}


@dataclass(frozen=True)
class Runs:
    """What a figure is drawn from.

    folders: as they were given. frame: `results.table.load` of them, without the methods that are
    not to be drawn. looks: by run and method, of all methods.
    """

    folders: tuple[RunFolder, ...]
    frame: DataFrame
    looks: dict[tuple[str, str], Look]

    @classmethod
    def load(cls, folders: Sequence[str | Path], methods: Sequence[str] | None = None) -> Runs:
        """Read the runs. methods: which to draw, all by default; references always are.

        Raises:
            InputError: there is nothing to draw, or a run does not have that method.
        """
        runs = tuple(map(RunFolder, dict.fromkeys(map(Path, folders))))
        frame = _filled(load(folders), folders)
        return cls(runs, _only(frame, methods), appearances(frame))

    @property
    def names(self) -> str:
        """The folders, for a sentence."""
        return ", ".join(str(run.path) for run in self.folders)

    def details(self, section: str) -> dict[tuple[str, str], dict[str, Any]]:
        """What that section tells beside its values, by run and key, where it is done."""
        return {
            (label, record.point.key): record.sections[section].details
            for label, run in zip(labels(self.folders), self.folders, strict=True)
            for record in run.records()
            if section in record.sections and record.sections[section].status == "done"
        }


class Page(NamedTuple):
    """A drawn figure, and all that was drawn as a table that names the records behind each row."""

    figure: Figure
    table: DataFrame


class Drawing(ABC):
    """One figure. Its fields are its options, as `bench plot` passes them."""

    @property
    def stem(self) -> str:
        """What its files are called where nobody says."""
        return type(self).__name__.lower()

    @abstractmethod
    def page(self, runs: Runs) -> Page:
        """Draw it.

        Raises:
            InputError: the runs lack what it shows, or one axis would mix what does not compare.
        """


def draw(
    drawing: Drawing,
    run_folders: Sequence[str | Path],
    out: str | Path,
    formats: Sequence[str] = ("png", "pdf"),
    methods: Sequence[str] | None = None,
) -> list[Path]:
    """Draw a figure of one or more runs, and write what was drawn as CSV beside it.

    out: the files' common path; a suffix such as .png is dropped. methods: which to draw, all by
    default; references always are.

    Returns:
        The files: one per format, then the CSV, which names the records behind each point.

    Raises:
        InputError: there is nothing to draw, a name is unknown, an axis would mix what does not
            compare, or the files cannot be written.
    """
    _check_formats(formats)
    runs = Runs.load(run_folders, methods)
    with style.context(["default", STYLE]):
        page = drawing.page(runs)
        contents = {suffix: _image(page.figure, suffix) for suffix in dict.fromkeys(formats)}
    contents["csv"] = page.table.to_csv(
        index=False, lineterminator="\n", float_format="%.10g"
    ).encode()
    out = Path(out)
    stem = out.with_suffix("") if out.suffix[1:] in (*FORMATS, "csv") else out
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in contents}
    for suffix, content in contents.items():
        write_whole(paths[suffix], content)
    return list(paths.values())


def _filled(frame: DataFrame, run_folders: Sequence[str | Path]) -> DataFrame:
    """The table itself where there is something to draw.

    Raises:
        InputError: there are no points, or none of them was measured.
    """
    names = ", ".join(map(str, run_folders))
    if frame.empty:
        raise InputError(f"{names or 'no run'} has no points yet; run the sweep first")
    if not (frame["status"] == "done").any() and not frame.attrs["sections"]:
        first = frame.iloc[0]
        raise InputError(
            f"none of the {len(frame)} points of {names} was measured "
            f"(the first is {first['status']}: {first['reason']}); mend that and sweep again"
        )
    return frame


def _only(frame: DataFrame, methods: Sequence[str] | None) -> DataFrame:
    if methods is None:
        return frame
    known = sorted(set(frame["method"]) - set(REFERENCES))
    for method in methods:
        if method not in known:
            raise InputError(
                f"method {method!r} is not in this run{closest(method, known)}; "
                f"it has: {', '.join(known) or 'none'}"
            )
    return frame[frame["method"].isin([*methods, *REFERENCES])]


def _check_formats(formats: Sequence[str]) -> None:
    for suffix in formats:
        if suffix not in FORMATS:
            raise InputError(f"unknown figure format {suffix!r}; known: {', '.join(FORMATS)}")


def _image(figure: Figure, suffix: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=suffix, dpi=220, metadata=_METADATA[suffix])
    return buffer.getvalue()
