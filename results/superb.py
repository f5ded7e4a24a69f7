"""superb_s: one number for all tasks, 0 for log-mel features and 1000 for a reference model.

For task t with metric m, `superb_s = mean over tasks of 1000 (m - m_fbank) / (m_ref - m_fbank)`
(SUPERB challenge at SLT 2022, arXiv 2210.08634). Error rates need no sign:
numerator and denominator flip together. All metrics are in percent, the MTWV times 100. A score
means nothing without its anchors, so every score carries their id.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError, closest
from core.metric import Metric

METRICS = (
    "ks_acc", "ic_acc", "pr_per", "asr_wer", "er_acc", "qbe_mtwv", "sf_f1", "sf_cer", "sid_acc",
    "sv_eer", "sd_der",
)  # fmt: skip

#: Rows that scores are anchored to. fbank: SUPERB leaderboard. leaderboard: the reference of the
#: public leaderboard's Score. wavlm_large: the reference of Wang et al. 2023, eq. 6.
ANCHORS: dict[str, dict[str, float]] = {
    name: dict(zip(METRICS, row, strict=True))
    for name, row in {
        "fbank": (41.38, 9.65, 82.01, 23.18, 48.24, 0.58, 69.64, 52.94, 20.06, 9.56, 10.05),
        "leaderboard": (96.66, 98.76, 3.53, 3.62, 67.62, 7.36, 89.81, 21.76, 90.33, 5.11, 5.62),
        "wavlm_large": (97.86, 99.31, 3.06, 3.44, 70.62, 8.86, 92.21, 18.36, 95.49, 3.77, 3.24),
    }.items()
}

#: The grade of superb_s whose anchors are a run's own FBANK and dense points. The official grade is
#: one of CONVENTIONS, worked out from sections `superb.TASK`, whose numbers are those columns.
QUICK, OFFICIAL = "quick", "superb."

#: 32 published models: parameters, MACs and all eleven metrics, with their source.
PUBLISHED = Path(__file__).parent / "published" / "superb.csv"


@dataclass(frozen=True)
class Convention:
    """A published way to score: the reference row, and the metrics that make up each task."""

    reference: str
    tasks: Mapping[str, tuple[str, ...]]


def _tasks(slot_filling: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    single = {m.split("_")[0]: (m,) for m in METRICS if not m.startswith("sf_")}
    return {**single, "sf": slot_filling}


#: Slot filling has two metrics: the leaderboard takes the mean of both terms, Wang et al. F1 alone.
CONVENTIONS = {
    "leaderboard": Convention("leaderboard", _tasks(("sf_f1", "sf_cer"))),
    "wang2023": Convention("wavlm_large", _tasks(("sf_f1",))),
}


@dataclass(frozen=True)
class Score:
    """A superb_s with what it was computed from.

    anchors: id of the two rows that stand for 0 and 1000. terms: the normalised score of each task
    that counts. missing: tasks that were not measured. marginless: tasks that cannot tell the two
    anchors apart. The value is the mean over `terms` alone, NaN where there are none.
    """

    anchors: str
    terms: dict[str, float]
    missing: tuple[str, ...] = ()
    marginless: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        return sum(self.terms.values()) / len(self.terms) if self.terms else math.nan

    @property
    def partial(self) -> bool:
        """Whether tasks were left out, so that the value does not compare with a full one."""
        return bool(self.missing or self.marginless)

    def over(self, tasks: Collection[str]) -> Score:
        """The same for these tasks alone."""
        return Score(
            self.anchors,
            {task: term for task, term in self.terms.items() if task in tasks},
            tuple(task for task in self.missing if task in tasks),
            tuple(task for task in self.marginless if task in tasks),
        )


def superb_s(values: Mapping[str, float], anchors: str = "leaderboard") -> Score:
    """Score one model by its SUPERB metrics (percent), under a published convention.

    Raises:
        InputError: the convention is unknown, or no task was measured.
    """
    score = official_superb_s(values, anchors)
    if not score.terms:
        raise InputError(f"no metric to score; give some of {', '.join(METRICS)}")
    return score


def official_superb_s(values: Mapping[str, float], anchors: str) -> Score:
    """As `superb_s`, without any terms where no task was measured.

    Raises:
        InputError: the convention is unknown.
    """
    convention = _convention(anchors)
    reference = convention.reference
    return _score(
        f"{anchors}:fbank-{reference}", values, ANCHORS["fbank"], ANCHORS[reference],
        convention.tasks,
    )  # fmt: skip


def quick_superb_s(
    values: Mapping[str, float],
    fbank: Mapping[str, float],
    dense: Mapping[str, float],
    tasks: Mapping[str, tuple[str, ...]],
) -> Score:
    """Score one model of a run between that run's own FBANK (0) and dense model (1000).

    values, fbank, dense: by metric name. tasks: the metrics of each that counts; of several, as of
    slot filling, the mean of their terms is taken.
    """
    return _score(f"{QUICK}:fbank-dense", values, fbank, dense, tasks)


def official_metric(name: str) -> Metric:
    """What one of METRICS means, as the column of official scores."""
    lower = name.endswith(("per", "wer", "cer", "eer", "der"))
    about = "by SUPERB's own recipe and data"
    return Metric(f"{OFFICIAL}{name}", "%", "lower" if lower else "higher", about)


def read_published(path: str | Path, needed: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    """The metrics of each model in a table with the columns of `published/superb.csv`.

    An empty cell is a metric that was not measured. Columns other than `model` and `needed` may be
    left out. Also yields `params_millions` and `macs_giga` where they are given.

    Raises:
        InputError: the file cannot be read, a column is unknown or missing, a model comes twice,
            or a cell is no number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}); give a CSV file in UTF-8") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    _check_columns(path, rows.fieldnames or (), needed)
    models: dict[str, dict[str, float]] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        name = (row["model"] or "").strip()
        if not name or name in models or None in row or None in row.values():
            raise InputError(
                f"{where}, model {name!r}: expected a name of its own and one cell per column"
            )
        cells = {c: row[c] for c in rows.fieldnames or () if c not in ("model", "source")}
        models[name] = {
            column: _number(cell, f"{where}, column {column}")
            for column, cell in cells.items()
            if cell.strip()
        }
    return models


def score_file(path: str | Path, anchors: str = "leaderboard") -> dict[str, Score]:
    """superb_s of every model in a table, in its order.

    Raises:
        InputError: as `read_published`; or a model has no task that can be scored.
    """
    tasks = _convention(anchors).tasks
    models = read_published(path, needed=tuple(m for names in tasks.values() for m in names))
    if not models:
        raise InputError(f"{path} lists no model; give one row per model")
    scores = {}
    for name, values in models.items():
        try:
            scores[name] = superb_s(values, anchors)
        except InputError as error:
            raise InputError(f"{path}, model {name!r}: {error}") from None
    return scores


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise InputError(
            f"unknown anchors {name!r}{closest(name, CONVENTIONS)}; known: {', '.join(CONVENTIONS)}"
        )
    return CONVENTIONS[name]


def _score(
    anchors: str,
    values: Mapping[str, float],
    low: Mapping[str, float],
    high: Mapping[str, float],
    tasks: Mapping[str, tuple[str, ...]],
) -> Score:
    terms, missing, marginless = {}, [], []
    for task, metrics in tasks.items():
        known = (values.get(m, math.nan) + low.get(m, math.nan) + high.get(m, math.nan)
                 for m in metrics)  # fmt: skip
        if not all(map(math.isfinite, known)):
            missing.append(task)
        elif any(high[m] == low[m] for m in metrics):
            marginless.append(task)
        else:
            parts = [1000 * (values[m] - low[m]) / (high[m] - low[m]) for m in metrics]
            terms[task] = sum(parts) / len(parts)
    return Score(anchors, terms, tuple(missing), tuple(marginless))


def _check_columns(path: str | Path, found: Sequence[str], needed: tuple[str, ...]) -> None:
    known = ("model", "source", "params_millions", "macs_giga", *METRICS)
    for column in found:
        if column not in known or list(found).count(column) > 1:
            raise InputError(
                f"{path} has an unknown or repeated column {column!r}{closest(column, known)}; "
                f"known: {', '.join(known)}"
            )
    lacking = [column for column in ("model", *needed) if column not in found]
    if lacking:
        raise InputError(
            f"{path} lacks the column {', '.join(lacking)}; "
            "add it, with empty cells where a task was not measured"
        )


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: expected a number or an empty cell, not {cell.strip()!r}")
    return value
