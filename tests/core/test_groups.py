"""Groups of plug-ins: what a comma list may name."""

from __future__ import annotations

import pytest

from core import plugins
from core.errors import InputError
from results.superb import METRICS

QUICK = ["ic", "ks", "pr", "pretext", "qbe", "sid", "sv"]


def test_superb_is_the_ten_with_their_metrics():
    ten = plugins.select("task", "superb")
    assert len(ten) == 10
    metrics = [metric.name for name in ten for metric in plugins.card("task", name).metrics]
    assert sorted(metrics) == sorted(METRICS)
    assert plugins.card("task", "sf").metrics[0].name == "sf_f1"


def test_groups_and_names_may_be_mixed_and_come_once():
    assert plugins.select("task", "quick") == QUICK
    assert plugins.select("task", "ks, quick,asr") == [
        "ks",
        *(n for n in QUICK if n != "ks"),
        "asr",
    ]
    assert plugins.select("task", "all") == plugins.names("task")
    assert plugins.select("task", "none") == []
    assert plugins.select("profiler", "all") == plugins.names("profiler")


def test_an_unknown_group_is_refused_with_the_closest():
    with pytest.raises(InputError, match="did you mean 'superb'"):
        plugins.select("task", "suberb")
