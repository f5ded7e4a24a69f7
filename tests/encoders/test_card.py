"""Model cards: read again as written, and what the hub's own reader makes of them."""

from __future__ import annotations

from pathlib import Path

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


def test_another_licence_takes_the_place_of_the_first() -> None:
    text = card.licensed(card.write(zoo.tiny(), MADE), "mit")
    assert text == card.licensed(card.licensed(text, "cc0-1.0"), "mit")
    assert 'license: "mit"' in text
    assert "apache-2.0" not in text.replace('"licence": "apache-2.0"', "").replace(
        "| licence | apache-2.0 |", ""
    )
