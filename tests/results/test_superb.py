import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from results import superb

#: As published, recomputed from the published metrics.
LEADERBOARD = {
    "FBANK": 0, "HuBERT Base": 941, "WavLM Base+": 1106, "DPHuBERT": 866, "DistilHuBERT": 717,
    "wav2vec 2.0 Base": 818,
}  # fmt: skip
WANG2023 = {
    "wav2vec": 491.59, "HuBERT Base": 837.63, "WavLM Base": 895.99,
    "Structured L0 + FAHP + STE": 769.62, "Structured L0 without FAHP": 707.11,
    "WavLM Large": 1000,
}  # fmt: skip

numbers = st.floats(-1e3, 1e3)


@pytest.fixture(scope="module")
def published():
    return superb.read_published(superb.PUBLISHED)


@pytest.mark.parametrize(("model", "score"), LEADERBOARD.items())
def test_leaderboard_scores(published, model, score):
    found = superb.superb_s(published[model], "leaderboard")
    assert round(found.value) == score
    assert found.anchors == "leaderboard:fbank-leaderboard"
    assert len(found.terms) == 10
    assert not found.partial


@pytest.mark.parametrize(("model", "score"), WANG2023.items())
def test_wang2023_scores(published, model, score):
    found = superb.superb_s(published[model], "wang2023")
    assert found.value == pytest.approx(score, abs=0.02)
    assert found.anchors == "wang2023:fbank-wavlm_large"


def test_anchors_agree_with_the_published_rows(published):
    metrics = set(superb.METRICS)
    for anchor, model in {"fbank": "FBANK", "wavlm_large": "WavLM Large"}.items():
        row = {k: v for k, v in published[model].items() if k in metrics}
        assert row == superb.ANCHORS[anchor]
    assert len(published) == 32
    assert published["DPHuBERT"]["macs_giga"] == 654.1


def test_a_partial_set_of_tasks_is_named():
    score = superb.superb_s({"pr_per": 3.53, "sf_f1": 89.81})
    assert score.value == pytest.approx(1000)
    assert list(score.terms) == ["pr"]
    assert score.partial
    assert "sf" in score.missing, "slot filling is incomplete without its second metric"
    assert list(superb.superb_s({"pr_per": 5, "sf_f1": 90}, "wang2023").terms) == ["pr", "sf"]


def test_nothing_to_score_is_refused():
    with pytest.raises(InputError, match="no metric"):
        superb.superb_s({"params_total": 3.0})
    with pytest.raises(InputError, match="did you mean 'leaderboard'"):
        superb.superb_s({"pr_per": 3.0}, "leaderbord")


@given(fbank=numbers, dense=numbers, share=st.floats(-2, 3))
def test_quick_score_is_linear_between_its_anchors(fbank, dense, share):
    if abs(dense - fbank) < 1e-3:
        return
    value = {"pr_per": fbank + share * (dense - fbank)}
    score = superb.quick_superb_s(value, {"pr_per": fbank}, {"pr_per": dense}, {"pr": ("pr_per",)})
    assert score.value == pytest.approx(1000 * share, abs=1e-3)
    assert score.anchors == "quick:fbank-dense"


def test_quick_score_names_what_it_leaves_out():
    metrics = {"pr": ("pr_per",), "ks": ("ks_acc",), "ic": ("ic_acc",)}
    fbank, dense = {"pr_per": 60.0, "ks_acc": 50.0}, {"pr_per": 20.0, "ks_acc": 50.0}
    score = superb.quick_superb_s({"pr_per": 40.0, "ks_acc": 60.0}, fbank, dense, metrics)
    assert score.value == pytest.approx(500)
    assert score.missing == ("ic",)
    assert score.marginless == ("ks",)


def test_quick_score_of_two_metrics_is_their_mean():
    """As the leaderboard has slot filling."""
    low, high = {"sf_f1": 60.0, "sf_cer": 50.0}, {"sf_f1": 80.0, "sf_cer": 10.0}
    score = superb.quick_superb_s(
        {"sf_f1": 70.0, "sf_cer": 40.0}, low, high, {"sf": ("sf_f1", "sf_cer")}
    )
    assert score.value == pytest.approx((500 + 250) / 2)


def edited(tmp_path, edit):
    with superb.PUBLISHED.open() as file:
        rows = list(csv.reader(file))[:3]
    edit(rows)
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def cell(row, column, value):
    return lambda rows: rows[row].__setitem__(rows[0].index(column), value)


def test_an_empty_cell_makes_the_score_partial(tmp_path):
    scores = superb.score_file(edited(tmp_path, cell(2, "sd_der", " ")))
    assert scores["wav2vec"].missing == ("sd",)
    assert not scores["FBANK"].partial


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (cell(0, "pr_per", "pr_pre"), "unknown or repeated column 'pr_pre'.*'pr_per'"),
        (cell(0, "pr_per", "ks_acc"), "repeated column 'ks_acc'"),
        (cell(0, "model", "source"), "repeated column 'source'"),
        (cell(2, "ks_acc", "n/a"), "line 3, column ks_acc: expected a number.*'n/a'"),
        (cell(2, "ks_acc", "nan"), "line 3, column ks_acc"),
        (cell(2, "model", "FBANK"), "line 3, model 'FBANK'"),
        (cell(2, "model", ""), "line 3, model ''"),
        (lambda rows: rows[2].append("x"), "one cell per column"),
        (lambda rows: rows[2].pop(), "one cell per column"),
        (lambda rows: [row.pop(4) for row in rows], "lacks the column asr_wer"),
        (lambda rows: rows.__delitem__(slice(1, None)), "lists no model"),
        (lambda rows: rows.clear(), "lacks the column model"),
    ],
)
def test_bad_tables_get_one_sentence(tmp_path, edit, message):
    with pytest.raises(InputError, match=message) as error:
        superb.score_file(edited(tmp_path, edit))
    assert "\n" not in str(error.value)


def test_a_model_without_metrics_is_named(tmp_path):
    def empty(rows):
        rows[2][3:-1] = [""] * 11

    with pytest.raises(InputError, match="model 'wav2vec'"):
        superb.score_file(edited(tmp_path, empty))


def test_an_unreadable_table_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        superb.score_file(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        superb.score_file(tmp_path / "binary.csv")
