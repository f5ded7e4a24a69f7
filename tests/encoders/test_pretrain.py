"""Pre-training: targets, masks, augmentation, and a cut run that goes on bit by bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders import zoo
from encoders.clusters import cluster
from encoders.masked_prediction import MaskedPrediction, span_mask
from encoders.model import build
from encoders.pretrain import Batches, Recipe, Speech, pretrain
from encoders.store import load

RECIPE = Recipe(
    utterances=0, clusters=(8, 8), steps=(4, 5), batch_frames=60, crops=(20, 30), checkpoint_every=2
)


@pytest.fixture
def speech(monkeypatch):
    """Random frames in the place of synthesised speech."""
    generator = torch.Generator().manual_seed(0)
    lengths = [60, 45, 33, 80]
    frames = torch.randn(sum(lengths), 80, generator=generator).half()
    made = Speech(frames, lengths, frames.float().mean(0), frames.float().std(0))
    monkeypatch.setattr(Speech, "load", lambda _: made)
    return made


def weights(folder):
    head = MaskedPrediction.load(folder / "pretext").head
    return {
        **load(folder).state_dict(),
        **head.state_dict(),
    }


def test_a_cut_run_goes_on_with_the_same_numbers(speech, tmp_path):
    pretrain(tmp_path / "whole", RECIPE, lambda *_: None)

    class Cut(Exception):
        pass

    steps = []
    draw = Batches.draw

    def cut(self, round_, step):
        steps.append((round_, step))
        if len(steps) == 8:
            raise Cut
        return draw(self, round_, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "draw", cut)
        with pytest.raises(Cut):
            pretrain(tmp_path / "cut", RECIPE, lambda *_: None, ["tensorboard"])
    assert not (tmp_path / "cut").exists()
    pretrain(tmp_path / "cut", RECIPE, lambda *_: None, ["tensorboard"])
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not (tmp_path / "cut.partial").exists()
    told = {path.parent.name for path in tmp_path.glob("cut.trackers/tensorboard/*/events*")}
    assert told == {"pretrain, seed 0, round 1", "pretrain, seed 0, round 2"}


def test_what_was_saved_names_a_cluster_of_every_frame(speech, tmp_path):
    pretrain(tmp_path / "model", RECIPE, lambda *_: None)
    task = MaskedPrediction.load(tmp_path / "model" / "pretext")
    assert task.layer == RECIPE.target_layer
    assert len(task.centroids) == 8
    targets = task.targets(torch.randn(2, 16000))
    assert targets.shape == (2, zoo.tiny().frames(16000))
    assert targets.max() < 8
    assert len(targets.unique()) > 1, "frames differ"


def test_training_lowers_the_loss(speech, tmp_path, monkeypatch):
    losses = []
    recipe = Recipe(utterances=0, clusters=(4, 4), steps=(100, 2), batch_frames=60, crops=(20,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encoders.pretrain.REPORT_EVERY", 20)
        pretrain(tmp_path / "m", recipe, lambda n, s, t, v: losses.append((n, v["loss"])))
    first = [loss for name, loss in losses if name == "round 1"]
    assert first[-1] < first[0]


@given(st.integers(1, 4), st.integers(40, 150), st.integers(0, 99))
def test_masks_are_spans_that_cover_about_half(batch, time, seed):
    mask = span_mask(batch, time, torch.Generator().manual_seed(seed))
    assert mask.shape == (batch, time)
    assert 0.3 < mask.float().mean() < 0.7
    edges = torch.nn.functional.pad(mask, (1, 1)).int().diff(dim=1)
    starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
    assert bool((ends[:, 1] - starts[:, 1] >= 5).all())


def test_augmentation_keeps_the_level_and_the_targets(speech):
    labels = torch.arange(len(speech.frames)) % 8
    batches = Batches(speech, labels, RECIPE)
    features, drawn, mask = batches.draw(0, 3)
    again = batches.draw(0, 3)
    assert all(torch.equal(a, b) for a, b in zip((features, drawn, mask), again, strict=True))
    assert not torch.equal(features, batches.draw(1, 3)[0])
    assert features.shape[:2] == drawn.shape == mask.shape
    clean = torch.randn(5, 40, 80)
    noisy = batches._augment(clean, torch.Generator().manual_seed(0))
    loud = clean.exp().mean((1, 2)), noisy.exp().mean((1, 2))
    torch.testing.assert_close(loud[0], loud[1], rtol=0.1, atol=0)


def test_clusters_are_those_of_the_data():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    truth = torch.randint(3, (300,), generator=generator)
    frames = centres[truth] + 0.1 * torch.randn(300, 2, generator=generator)
    found = cluster(frames, 3, seed=0).labels
    for label in range(3):
        assert len(found[truth == label].unique()) == 1
    assert len(found.unique()) == 3


def test_pretext_of_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bench pretrain"):
        MaskedPrediction.load(tmp_path)


def test_teacher_of_the_task_is_in_evaluation_mode(speech, tmp_path):
    pretrain(tmp_path / "model", RECIPE, lambda *_: None)
    task = MaskedPrediction.load(tmp_path / "model" / "pretext")
    assert not task.teacher.training
    assert build(zoo.tiny()).spec == task.teacher.spec
