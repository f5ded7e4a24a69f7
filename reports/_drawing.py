"""What a figure is, and the way from the records of runs to its files.

Drawn from records alone, and the same bytes each time: no dates, no software versions.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from matplotlib import style as styling
from matplotlib.figure import Figure

from core.errors import InputError, closest
from core.point import REFERENCES
from reports._looks import STYLES, Look, appearances
from results.published import METHOD as PUBLISHED
from results.store import RunFolder, write_whole
from results.table import Run, read, tabulate

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

    runs: as they were read. frame: `results.table.tabulate` of them, without the methods that are
    not to be drawn. looks: by run and method, of all methods. methods: that are to be drawn.
    """

    runs: tuple[Run, ...]
    frame: DataFrame
    looks: dict[tuple[str, str], Look]
    methods: tuple[str, ...] | None = None

    @classmethod
    def load(
        cls,
        folders: Sequence[str | Path],
        methods: Sequence[str] | None = None,
        needed: bool = True,
        details: Collection[str] | None = None,
    ) -> Runs:
        """Read the runs. methods: which to draw, all by default; references always are.

        details: of those of the sections, what is read, all by default.

        Raises:
            InputError: there is nothing to draw and something is needed, or no run has that method.
        """
        runs = read(folders, details)
        chosen = None if methods is None else tuple(methods)
        return cls.of(runs, tabulate(runs), chosen, needed or bool(folders))

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        frame: DataFrame,
        methods: tuple[str, ...] | None = None,
        needed: bool = True,
    ) -> Runs:
        """What `load` makes of runs that were read, and of their table.

        Raises:
            InputError: as `load`.
        """
        if needed:
            _check_filled(frame, [run.folder.path for run in runs])
        return cls(tuple(runs), _only(frame, methods), appearances(frame), methods)

    def graded(self, anchors: str, published: bool) -> Runs:
        """The same runs with superb_s of that grade, and with published models beside them.

        Raises:
            InputError: there is no such grade.
        """
        frame = tabulate(self.runs, anchors, published)
        return replace(self, frame=_only(frame, self.methods), looks=appearances(frame))

    @property
    def labelled(self) -> dict[str, RunFolder]:
        """The folders by the names that the frame has for them."""
        return {run.name: run.folder for run in self.runs}

    @property
    def names(self) -> str:
        """The folders, for a sentence."""
        return ", ".join(str(run.folder.path) for run in self.runs)

    def details(self, section: str) -> dict[tuple[str, str], dict[str, Any]]:
        """What that section tells beside its values, by run and key, where it is done."""
        return {
            (run.name, record.point.key): record.sections[section].details
            for run in self.runs
            for record in run.records
            if section in record.sections and record.sections[section].status == "done"
        }


class Page(NamedTuple):
    """A drawn figure, and all that was drawn as a table that names the records behind each row."""

    figure: Figure
    table: DataFrame


class Drawing(ABC):
    """One figure. Its fields are its options, as `bench plot` passes them.

    reads: of the sections' details, those that it needs.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    @property
    def stem(self) -> str:
        """What its files are called where nobody says."""
        return type(self).__name__.lower()

    @property
    def needs_runs(self) -> bool:
        """Whether there is nothing to draw without a run."""
        return True

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
    style: str = "paper",
) -> list[Path]:
    """Draw a figure of one or more runs, and write what was drawn as CSV beside it.

    out: the files' common path; a suffix such as .png is dropped. methods: which to draw, all by
    default, a plain name with whatever options; references always are. style: paper, or slides,
    which are 16:9 in larger letters.

    Returns:
        The files: one per format, then the CSV, which names the records behind each point.

    Raises:
        InputError: there is nothing to draw, a name is unknown, an axis would mix what does not
            compare, or the files cannot be written.
    """
    _check(formats, style)
    runs = Runs.load(run_folders, methods, drawing.needs_runs, drawing.reads)
    return _written(drawing, runs, Path(out), formats, style)


def draw_all(
    drawings: Sequence[Drawing],
    run_folders: Sequence[str | Path],
    out: str | Path,
    formats: Sequence[str] = ("png", "pdf"),
    methods: Sequence[str] | None = None,
    style: str = "paper",
) -> Iterator[list[Path] | InputError]:
    """Draw each of the figures into a folder: its files, or why the runs have no such figure.

    Raises:
        InputError: there is nothing to draw at all, or a name is unknown.
    """
    _check(formats, style)
    runs = Runs.load(run_folders, methods, details=read_by(drawings))
    for drawing in drawings:
        try:
            yield _written(drawing, runs, Path(out) / drawing.stem, formats, style)
        except InputError as error:
            yield error


def read_by(drawings: Iterable[Drawing]) -> set[str]:
    """What any of them needs of the sections' details."""
    return {name for drawing in drawings for name in drawing.reads}


def _written(
    drawing: Drawing, runs: Runs, out: Path, formats: Sequence[str], style: str
) -> list[Path]:
    """The files of a figure, made whole one by one when all are drawn."""
    contents, table = images(drawing, runs, formats, style)
    contents["csv"] = table.to_csv(index=False, lineterminator="\n", float_format="%.10g").encode()
    stem = out.with_suffix("") if out.suffix[1:] in (*FORMATS, "csv") else out
    paths = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in contents}
    for suffix, content in contents.items():
        write_whole(paths[suffix], content)
    return list(paths.values())


def images(
    drawing: Drawing, runs: Runs, formats: Sequence[str], style: str = "paper"
) -> tuple[dict[str, bytes], DataFrame]:
    """A figure in each format, and all that was drawn as a table.

    Raises:
        InputError: as `Drawing.page`.
    """
    with styling.context(["default", STYLES[style]]):
        page = drawing.page(runs)
        if style == "slides":
            _widen(page.figure)
        contents = {suffix: _image(page.figure, suffix) for suffix in dict.fromkeys(formats)}
    return contents, page.table


def _check_filled(frame: DataFrame, run_folders: Sequence[str | Path]) -> None:
    """Refuse runs of which there is nothing to draw.

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


def _only(frame: DataFrame, methods: Sequence[str] | None) -> DataFrame:
    if methods is None:
        return frame
    always = {*REFERENCES, PUBLISHED}
    known = sorted(set(frame["method"]) - always)
    chosen = set(always)
    for method in methods:
        found = {one for one in known if method in (one, re.sub(r"[@[][^+]*$", "", one))}
        if not found:
            raise InputError(
                f"method {method!r} is not in this run{closest(method, known)}; "
                f"it has: {', '.join(known) or 'none'}"
            )
        chosen |= found
    return frame[frame["method"].isin(chosen)]


def _check(formats: Sequence[str], style: str) -> None:
    """Refuse what no figure has.

    Raises:
        InputError: a format or the style is unknown.
    """
    for kind, given, known in (("format", formats, FORMATS), ("style", [style], tuple(STYLES))):
        for name in given:
            if name not in known:
                raise InputError(f"unknown figure {kind} {name!r}; known: {', '.join(known)}")


def _widen(figure: Figure) -> None:
    """Make it 16:9 by adding what is missing of its width or height."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, height * 16 / 9), max(height, width * 9 / 16))


def _image(figure: Figure, suffix: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=suffix, dpi=220, metadata=_METADATA[suffix])
    return buffer.getvalue()
