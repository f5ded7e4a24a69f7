"""The model card: what a model is, how it was made, what it costs and scores, how to load it.

Its front matter is YAML as the Hugging Face hub reads it; each entry is one line of JSON, which is
YAML too, so that nothing but the standard library is needed to read it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.metric import Metric
from core.spec import ModelSpec
from encoders.files import read_text

FILE = "README.md"
LIBRARY = "speech-compression-bench"

#: What is under this licence because it comes with this repository.
_OWN = {"builtin": "apache-2.0"}

_CHECKOUT = f"pip install ./{LIBRARY}  # a checkout of its repository: it is on no index"

_LOAD = """\
from encoders import load

encoder = load({place!r})
hidden = encoder(waveforms)  # (batch, samples) at 16 kHz -> hidden.states, layers + 1 of them"""


@dataclass(frozen=True)
class Origin:
    """How a model was made, as far as it is known.

    model: what was compressed, as `encoders.load` takes it. data: what the method looked at or
    trained on. licence: of the weights that it was made from, an identifier of the hub.
    """

    model: str = ""
    method: str = ""
    rate: float | None = None
    achieved_rate: float | None = None
    seed: int | None = None
    data: str = ""
    licence: str = ""

    def known(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}


@dataclass(frozen=True)
class Result:
    """A number that was measured. kind: cost or score. data: what it was measured on."""

    kind: str
    metric: Metric
    value: float
    data: str


@dataclass(frozen=True)
class Snippet:
    """Code that runs a model. install: what it needs. note: what else has to be known."""

    code: str
    install: str = ""
    note: str = ""


def of(model: str, **known: Any) -> Origin:
    """The origin of what is made from that model, its licence taken from its own card."""
    name = Path(model).name if Path(model).is_dir() else model
    return Origin(name, licence=_OWN.get(model) or read(Path(model) / FILE).licence, **known)


def read(path: Path) -> Origin:
    """The origin that a card tells; of other files nothing is known."""
    try:
        text = read_text(path)
    except InputError:
        return Origin()
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    lines = dict(line.partition(": ")[::2] for line in (front[1] if front else "").split("\n"))
    made, licence = _json(lines.get("compression")), lines.get("license", "").strip("\"' ")
    told = made if isinstance(made, dict) else {}
    sound = {own.name: told[own.name] for own in fields(Origin) if _fits(own.name, told)}
    return replace(Origin(**sound), licence=licence)


def _fits(name: str, told: dict[str, Any]) -> bool:
    """Whether what is told under that name can be of an origin."""
    value = told.get(name)
    if name in ("rate", "achieved_rate", "seed"):
        whole = name == "seed"
        return isinstance(value, int if whole else int | float) and abs(value) < 1 << 63
    return isinstance(value, str)


def loading(place: str) -> Snippet:
    """How a saved model is loaded from that place, as `encoders.load` takes it."""
    return Snippet(_LOAD.format(place=place), _install())


def _install() -> str:
    """How to get this package, which is on no index: from where it came, or from a checkout."""
    try:
        told = metadata.distribution(LIBRARY)
    except metadata.PackageNotFoundError:
        return _CHECKOUT
    source = _json(told.read_text("direct_url.json")) or {}
    if commit := source.get("vcs_info", {}).get("commit_id"):
        return f"pip install '{LIBRARY} @ git+{source['url']}@{commit}'"
    urls = dict(entry.split(", ", 1) for entry in told.metadata.get_all("Project-URL") or ())
    place = urls.get("Repository")
    return f"pip install '{LIBRARY} @ git+{place}'" if place else _CHECKOUT


def licensed(text: str, licence: str) -> str:
    """A card that was written here, under that licence."""
    bare = re.sub(r"^license: .*\n", "", text, count=1, flags=re.MULTILINE)
    bare = bare.replace("---\n", f"---\nlicense: {json.dumps(licence)}\n", 1)
    return re.sub(r"## Licence\n\n.*", _licence(Origin(licence=licence)), bare, count=1)


def is_ours(path: Path) -> bool:
    """Whether that file is a card that was written here."""
    try:
        return f'\nlibrary_name: "{LIBRARY}"\n' in read_text(path)
    except InputError:
        return False


def write(
    spec: ModelSpec,
    origin: Origin,
    results: Sequence[Result] = (),
    snippet: Snippet | None = None,
    extra: str = "",
) -> str:
    """A card. results: what was measured. snippet: code in place of ours. extra: a last section."""
    snippet = snippet or loading(".")
    title = f"{origin.model or spec.family}, {origin.method or 'not compressed'}"
    parts = [
        _front(spec, origin, results, title),
        f"# {title}\n\n{_sentence(spec, origin)}",
        _usage(snippet),
        _table("How it was made", [(k.replace("_", " "), v) for k, v in origin.known().items()]),
        *(_measured(kind, [r for r in results if r.kind == kind]) for kind in ("cost", "score")),
        _table("Shape", _shape(spec)),
        _licence(origin),
        extra,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(spec: ModelSpec, origin: Origin, results: Sequence[Result], title: str) -> str:
    method = re.sub(r"\[[^\]]*\]", "", origin.method)
    methods = [name.partition("@")[0] for name in method.split("+") if name]
    entries: dict[str, Any] = {
        "license": origin.licence or None,
        "library_name": LIBRARY,
        "pipeline_tag": "feature-extraction",
        "tags": ["speech", "self-supervised", "model-compression", spec.family, *methods],
        "base_model": origin.model.removeprefix("hf:").partition("@")[0]
        if origin.model.startswith("hf:") and not Path(origin.model[3:]).is_dir()
        else None,
        "model-index": _index(title, [result for result in results if result.kind == "score"]),
        "compression": origin.known() or None,
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in entries.items() if value]
    return "\n".join(["---", *lines, "---"])


def _index(title: str, scores: Iterable[Result]) -> list[dict[str, Any]]:
    """The scores as the hub lists them beside a model."""
    rows = [
        {
            "task": {"type": score.metric.name},
            "dataset": {"type": score.data, "name": score.data},
            "metrics": [
                {"type": score.metric.name, "name": score.metric.about, "value": score.value}
            ],
        }
        for score in scores
    ]
    return [{"name": title, "results": rows}] if rows else []


def _sentence(spec: ModelSpec, origin: Origin) -> str:
    what = f"A speech encoder of the {spec.family} family: 16 kHz waveforms to hidden states"
    if not origin.method:
        return f"{what}."
    rate = "" if origin.rate is None else f" at a rate of {origin.rate:g}"
    return f"{what}, made from `{origin.model}` by `{origin.method}`{rate}."


def _usage(snippet: Snippet) -> str:
    install = snippet.install and f"```sh\n{snippet.install}\n```\n\n"
    note = snippet.note and f"\n\nNote: {snippet.note}."
    return f"## Use it\n\n{install}```python\n{snippet.code}\n```{note}"


def _measured(kind: str, results: Sequence[Result]) -> str:
    rows = [
        (r.metric.name, f"{r.value:,.6g} {r.metric.unit}".strip(), r.metric.about, r.data)
        for r in results
    ]
    return _table(f"{kind.capitalize()}s", rows)


def _shape(spec: ModelSpec) -> list[tuple[Any, ...]]:
    layers = spec.layers
    return [
        ("layers", len(layers)),
        ("width", spec.dim),
        ("heads", ", ".join(str(len(layer.heads)) for layer in layers)),
        ("feed-forward units", ", ".join(str(layer.ffn) for layer in layers)),
        ("numbers", ", ".join(sorted({layer.numeric for layer in layers})) or spec.dtype),
        ("samples per frame", spec.hop),
    ]


def _licence(origin: Origin) -> str:
    if origin.licence:
        return f"## Licence\n\nThat of the source's weights: {origin.licence}."
    return "## Licence\n\nThat of the source's weights, which is not known here."


def _table(title: str, rows: Sequence[tuple[Any, ...]]) -> str:
    if not rows:
        return ""
    width = len(rows[0])
    lines = ["|" + " |" * width, "|" + "---|" * width]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return f"## {title}\n\n" + "\n".join(lines)


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
