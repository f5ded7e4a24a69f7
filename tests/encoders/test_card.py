"""Model cards: read again as written, and what the hub's own reader makes of them."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from core.metric import Metric
from encoders import card, zoo
from encoders.card import Origin, Result

MADE = Origin("hf:facebook/hubert-base-ls960", "low-rank[what=ffn]+head-pruning", 0.5, 0.48, 3,
              "LibriSpeech:dev-clean", "apache-2.0")  # fmt: skip
RESULTS = [
    Result("cost", Metric("macs_dense", "", "lower", "MACs"), 1.5e9, "superb32"),
    Result("score", Metric("pr_per", "%", "lower", "phone error rate"), 20.5, "builtin"),
]


@pytest.mark.parametrize("origin", [Origin(), MADE, Origin("builtin", 'odd: "name"\\')])
def test_a_card_tells_its_origin_again(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / card.FILE).write_text(card.write(zoo.tiny(), origin, RESULTS), encoding="utf-8")
    assert card.read(tmp_path / card.FILE) == origin
    assert card.is_ours(tmp_path / card.FILE)


@pytest.mark.parametrize("text", ["", "# mine\n", "---\ncompression: [1]\n---\n", "---\n: \n---\n"])
def test_other_files_tell_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / card.FILE).write_text(text)
    assert card.read(tmp_path / card.FILE) == Origin()
    assert not card.is_ours(tmp_path / card.FILE)


@pytest.mark.parametrize(
    "told",
    [
        {"method": 5},
        {"model": ["a"]},
        {"rate": "x"},
        {"rate": 10**400},
        {"seed": 0.5},
        {"data": {}},
    ],
    ids=lambda told: str(told)[:20],
)
def test_what_cannot_be_of_an_origin_is_not_known(told: dict[str, Any], tmp_path: Path) -> None:
    text = f"---\ncompression: {json.dumps({'licence': 'x', **told})}\n---\n"
    (tmp_path / card.FILE).write_text(text)
    found = card.read(tmp_path / card.FILE)
    assert found == Origin()
    assert card.write(zoo.tiny(), found)


def test_a_card_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / card.FILE).symlink_to("/dev/zero")
    assert card.read(tmp_path / card.FILE) == Origin()
    assert not card.is_ours(tmp_path / card.FILE)


def test_the_licence_of_any_card_is_found(tmp_path: Path) -> None:
    (tmp_path / card.FILE).write_text("---\ntags:\n- speech\nlicense: mit\n---\n# Theirs\n")
    assert card.of(str(tmp_path), method="low-rank") == Origin(
        tmp_path.name, "low-rank", licence="mit"
    )
    assert card.of("builtin").licence == "apache-2.0"
    assert card.of("random:tiny").licence == ""


def test_the_hub_reads_the_front_matter() -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card.write(zoo.tiny(), MADE, RESULTS)).data
    assert data.license == "apache-2.0"
    assert data.base_model == "facebook/hubert-base-ls960"
    assert {"low-rank", "head-pruning"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("pr_per", 20.5)


def test_costs_scores_and_shape_are_told() -> None:
    text = card.write(zoo.tiny(), MADE, RESULTS)
    assert "| macs_dense | 1.5e+09 | MACs | superb32 |" in text
    assert "| pr_per | 20.5 % | phone error rate | builtin |" in text
    assert "| feed-forward units | 512, 512, 512, 512, 512, 512 |" in text


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "pip install ./speech-compression-bench  # a checkout"),
        ({"direct_url.json": '{"url": "file:///home/me/x", "dir_info": {}}'}, "pip install ./"),
        (
            {"direct_url.json": '{"url": "https://a/b", "vcs_info": {"commit_id": "12ab"}}'},
            "pip install 'speech-compression-bench @ git+https://a/b@12ab'",
        ),
        (
            {"METADATA": "Project-URL: Docs, https://d\nProject-URL: Repository, https://a/b\n"},
            "pip install 'speech-compression-bench @ git+https://a/b'",
        ),
    ],
)
def test_the_package_comes_from_where_it_is(
    files: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never from a package index, where it is not, nor from a folder of this machine."""
    for name, text in ({"METADATA": ""} | files).items():
        (tmp_path / name).write_text(text)
    own = metadata.PathDistribution(tmp_path)
    monkeypatch.setattr(metadata, "distribution", lambda name: own)
    text = card.write(zoo.tiny(), Origin())
    assert says in text
    assert "/home/me" not in text


def test_another_licence_takes_the_place_of_the_first() -> None:
    text = card.licensed(card.write(zoo.tiny(), MADE), "mit")
    assert text == card.licensed(card.licensed(text, "cc0-1.0"), "mit")
    assert 'license: "mit"' in text
    assert "apache-2.0" not in text.replace('"licence": "apache-2.0"', "").replace(
        "| licence | apache-2.0 |", ""
    )
