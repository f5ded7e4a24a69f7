"""What tests of methods that train share: speech to train on, and who trained."""

from __future__ import annotations

from typing import Any

import pytest
from toy_corpus import ToyCorpus

from compressors import _trained


@pytest.fixture(scope="module")
def corpus() -> ToyCorpus:
    return ToyCorpus(repeats=4)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the trainings that really ran."""
    names: list[str] = []
    train = _trained.train

    def counted(learner: Any, batches: Any, settings: Any, name: str, *rest: Any) -> Any:
        names.append(name)
        return train(learner, batches, settings, name, *rest)

    monkeypatch.setattr(_trained, "train", counted)
    return names
