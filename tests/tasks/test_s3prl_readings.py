"""Scores are read from what s3prl leaves, in SUPERB's units."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tasks.qbe import BETA
from tasks.s3prl import detection, diarization, readings
from tasks.s3prl.recipes import RECIPES


def read(task: str, folder: Path, settings: dict[str, str] | None = None) -> dict[str, float]:
    return readings.read(RECIPES[task], folder, settings or {})


@pytest.mark.parametrize("task", RECIPES)
def test_a_folder_without_scores_has_none(task: str, tmp_path: Path) -> None:
    assert read(task, tmp_path) == {}


@pytest.mark.parametrize(("lines", "expected"), [
    (["dev at step 10: 0.5", "New best on dev at step 10: 0.5", "test at step 10: 0.4",
      "dev at step 20: 0.4", "test at step 20: 0.6"], 40),
    (["dev at step 10: 0", "test at step 10: 0.25"], 25),
    (["New best on dev at step 10: 0.5", "test at step 0: 0.3"], 30),
])  # fmt: skip
def test_accuracy_is_that_of_the_best_step_on_dev(
    lines: list[str], expected: float, tmp_path: Path
) -> None:
    (tmp_path / "log.log").write_text("\n".join(lines) + "\n")
    assert read("ks", tmp_path) == {"ks_acc": pytest.approx(expected)}


def test_error_rates_are_counted_over_all_words(tmp_path: Path) -> None:
    (tmp_path / "test-hyp.ark").write_text("a AH0 B\nb \nc D\n")
    (tmp_path / "test-ref.ark").write_text("a AH0 B\nb D IY1\nc D\n")
    assert read("pr", tmp_path) == {"pr_per": pytest.approx(40)}


@pytest.mark.skipif(find_spec("s3prl") is None, reason="s3prl is not installed")
def test_slots_are_scored_by_s3prls_functions(tmp_path: Path) -> None:
    (tmp_path / "test-hyp.ark").write_text("a B-city ROME E-city TO\nb GO\n")
    (tmp_path / "test-ref.ark").write_text("a B-city ROMA E-city TO\nb B-city OSLO E-city\n")
    # Types: right for the first, none for the second. Values: one letter of four is wrong; all are.
    assert read("sf", tmp_path) == {"sf_f1": pytest.approx(50), "sf_cer": pytest.approx(62.5)}


def test_equal_error_rate_is_the_lowest_of_the_checkpoints(tmp_path: Path) -> None:
    for steps, value in ((10, 0.25), (20, 0.125)):
        (tmp_path / f"states-{steps}").mkdir()
        log = tmp_path / f"states-{steps}" / "log.txt"
        log.write_text(f"noise\nsv-voxceleb1/test-EER: {value}\n")
    assert read("sv", tmp_path) == {"sv_eer": 12.5}


def test_diarization_errors_by_hand() -> None:
    truth = {"r": {"ann": [(0.0, 4.0)], "bob": [(3.0, 6.0)]}}
    # ann is heard until 5, a second too long; bob is missed from 3 to 4, where both speak.
    guess = {"r": {"0": [(0.0, 5.0)], "1": [(4.0, 6.0)]}}
    assert diarization.error_rate(truth, guess) == pytest.approx(100 * 2 / 7)
    assert diarization.error_rate(truth, {}) == 100
    assert diarization.error_rate(truth, truth) == 0


def test_turns_are_cut_to_hundredths_after_the_median() -> None:
    frames = np.zeros((100, 1))
    frames[10:40], frames[70] = 0.6, 0.9
    assert diarization.turns(frames, 320, 1, 0.5) == {"0": [(0.2, 0.8), (1.4, 1.42)]}
    assert diarization.turns(frames, 320, 11, 0.5) == {"0": [(0.2, 0.8)]}
    assert diarization.turns(frames, 320, 1, 0.7) == {"0": [(1.4, 1.42)]}


def test_diarization_reports_the_best_of_ten_settings(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    predictions = tmp_path / "scoring" / "predictions"
    predictions.mkdir(parents=True)
    heard = np.zeros((100, 2))
    heard[:50, 0], heard[50:, 1], heard[:50, 1] = 0.9, 0.45, 0.35
    with h5py.File(predictions / "r.h5", "w") as file:
        file.create_dataset("T_hat", data=heard)
    (tmp_path / "frame_shift").write_text("320\n")
    turns = ["SPEAKER r 1 0.00 1.00 <NA> <NA> a <NA>", "SPEAKER r 1 1.00 1.00 <NA> <NA> b <NA>"]
    (tmp_path / "rttm").write_text("\n".join(turns) + "\n")
    settings = {"downstream_expert.loaderrc.test_dir": str(tmp_path)}
    assert read("sd", tmp_path, settings) == {"sd_der": pytest.approx(0)}  # at threshold 0.4 alone
    dscore = "File DER\n*** OVERALL ***   {}  12.00\n"
    for name, value in (("result_th0.3_med1", "9.50"), ("result_th0.4_med1", "8.25")):
        (tmp_path / "scoring" / name).write_text(dscore.replace("*** O", "*** O").format(value))
    assert read("sd", tmp_path, settings) == {"sd_der": 8.25}


@pytest.fixture
def quesst(tmp_path: Path) -> Path:
    """A list of two queries over four documents, and what is true of them."""
    root = ElementTree.Element("stdlist")
    scores = {"q1": (4, 2, 1, 0), "q2": (0, 3, -1, 2)}
    for query, row in scores.items():
        terms = ElementTree.SubElement(root, "detected_termlist", termid=query)
        for document, score in enumerate(row):
            ElementTree.SubElement(terms, "term", file=f"d{document}", score=f"{score:.4f}")
    ElementTree.ElementTree(root).write(tmp_path / detection.LIST)
    truth = tmp_path / "scoring" / "groundtruth_quesst14_dev"
    truth.mkdir(parents=True)
    lines = [f"LEXEME {d} 1 0.0 1.0 {q} lex 1 <NA>" for d, q in (("d0", "q1"), ("d2", "q2"))]
    (truth / "quesst14_dev.rttm").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_mtwv_by_its_definition(quesst: Path) -> None:
    # From 4 up q1 is found and nothing wrong; each of the three wrong documents of q2, of which one
    # comes next, costs BETA / 3 of it. A query that the list lacks is not found: a third.
    assert BETA / 3 > 1
    assert detection.score(quesst, quesst / "scoring", "dev") == (50, detection.BY_US)
    truth = quesst / "scoring" / "groundtruth_quesst14_dev" / "quesst14_dev.rttm"
    truth.write_text(truth.read_text() + "LEXEME d1 1 0.0 1.0 q3 lex 1 <NA>\n")
    found, _ = detection.score(quesst, quesst / "scoring", "dev")
    assert found == pytest.approx(100 / 3)


def test_the_scorer_of_the_corpus_comes_first(quesst: Path) -> None:
    script = 'echo "actTWV: 0.05 maxTWV: 0.0736 Threshold: 2.1 $2 $3" > "$1/score.out"\n'
    (quesst / "scoring" / detection.SCORER).write_text(script)
    found = detection.score(quesst, quesst / "scoring", "dev")
    assert found == (pytest.approx(7.36), detection.BY_CORPUS)
    assert "groundtruth_quesst14_dev -10" in (quesst / "score.out").read_text()
    assert read("qbe", quesst) == {"qbe_mtwv": pytest.approx(7.36)}


def test_a_scorer_that_fails_is_not_believed(quesst: Path) -> None:
    (quesst / "scoring" / detection.SCORER).write_text("echo java: not found; exit 127\n")
    assert detection.score(quesst, quesst / "scoring", "dev")[1] == detection.BY_US
