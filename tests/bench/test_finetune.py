"""`bench finetune`: both ways from the same head, zeros that stay, cuts that change nothing."""

from __future__ import annotations

import csv
import json
import os
import pickle
from dataclasses import replace

import pytest
import soundfile
import torch
from toy_corpus import ToyCorpus

from bench import finetune, logs
from bench.cli import run
from bench.goals import goal
from bench.jobs import Started
from bench.tuning import Draws, Recipe, tune
from compressors._zeros import nonzero, weights, zero_lowest
from core.errors import Diverged, Unsupported
from core.point import DENSE, FBANK, RANDOM, Point
from core.record import Section
from encoders import store
from encoders.cut import keep_layers
from encoders.model import build
from encoders.training_log import silent
from results.store import RunFolder
from tasks._features import extract
from tasks._suite import score_tasks

RECIPE = Recipe(10, 1e-3, 1e-3, 4.0, "no")


@pytest.fixture(scope="module")
def corpus():
    return ToyCorpus(4)


@pytest.fixture(scope="module")
def encoder(small_model):
    return store.load(small_model)


@pytest.fixture(scope="module")
def tuned(encoder, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    return tune(encoder, "ks", corpus, 0, RECIPE, folder, silent), folder


def test_the_head_begins_as_the_task_trains_it(encoder, corpus, tuned):
    ((_, outcome),) = score_tasks(encoder, ["ks"], corpus, seed=0)
    assert tuned[0]["head"]["test"] == pytest.approx(outcome.values["ks_acc"])
    assert tuned[0]["head"]["dev"] == pytest.approx(outcome.details["dev"])


def losses(folder):
    """The last loss of each training."""
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {row["training"]: float(row["value"]) for row in rows if row["metric"] == "loss"}


def test_an_encoder_that_learns_fits_what_its_head_alone_cannot(encoder, tmp_path):
    shuffled = ToyCorpus(4)
    words = [item.labels["word"] for item in shuffled.items]
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(1)).tolist()
    for item, place in zip(shuffled.items, order, strict=True):
        item.labels["word"] = words[place]
    tune(encoder, "ks", shuffled, 0, replace(RECIPE, steps=80), tmp_path, silent)
    found = losses(tmp_path)
    assert found["ks tuned"] < found["ks frozen"] - 0.03


def test_both_ways_are_logged_and_the_encoder_is_left_as_it_was(encoder, small_model, tuned):
    _, folder = tuned
    with (folder / "log.csv").open() as file:
        steps = {row["training"]: int(row["step"]) for row in csv.DictReader(file)}
    assert steps == {"ks frozen": 10, "ks tuned": 10}
    fresh = store.load(small_model).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in encoder.state_dict().items())
    state = torch.load(folder / "ks-tuned.pt", weights_only=True)["learner"]
    front = [name for name in state if "front_end" in name and not name.endswith(("mean", "std"))]
    assert not front, "the front end is frozen"
    assert any(
        not torch.equal(value, fresh[name.removeprefix("encoder.")])
        for name, value in state.items()
        if name.startswith("encoder.layers")
    )


def test_a_cut_changes_nothing(encoder, corpus, tuned, tmp_path):
    class Cut(Exception):
        pass

    def cut(name, step, total, values):
        if name == "ks tuned" and step == 7:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        usual = Recipe.settings
        patch.setattr(
            Recipe, "settings", lambda self, seed: replace(usual(self, seed), checkpoint_every=3)
        )
        with pytest.raises(Cut):
            tune(encoder, "ks", corpus, 0, RECIPE, tmp_path, cut)
        assert tune(encoder, "ks", corpus, 0, RECIPE, tmp_path, silent) == tuned[0]


def test_weights_that_are_zero_stay_zero(encoder, corpus, tmp_path):
    from compressors._zeros import magnitudes

    pruned = zero_lowest(encoder, magnitudes(encoder), 0.8)
    tune(pruned, "ks", corpus, 0, replace(RECIPE, steps=3), tmp_path, silent)
    state = torch.load(tmp_path / "ks-tuned.pt", weights_only=True)["learner"]
    after = build(pruned.spec, 0)
    own = {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}
    after.load_state_dict({**pruned.state_dict(), **own})
    pairs = zip(weights(pruned), weights(after), strict=True)
    before_zero = [(getattr(m, n) == 0, getattr(o, n)) for (m, n), (o, _) in pairs]
    assert all(not value[zero].any() for zero, value in before_zero)
    assert nonzero(after) == nonzero(pruned)
    assert any(not torch.equal(value, getattr(m, n)) for (m, n), (_, value) in
               zip(weights(pruned), before_zero, strict=True))  # fmt: skip


def test_sequences_are_tuned_by_their_own_metric(encoder, corpus, tmp_path):
    scores = tune(encoder, "pr", corpus, 0, replace(RECIPE, steps=2), tmp_path, silent)
    ((_, outcome),) = score_tasks(encoder, ["pr"], corpus, seed=0)
    assert scores["head"]["test"] == pytest.approx(outcome.values["pr_per"])
    assert losses(tmp_path)["pr tuned"] < 1, "it begins with a head that knows the phones"


def test_batches_are_the_same_for_both_ways_and_for_every_call(encoder, corpus):
    learned = goal("ks", corpus, 0)
    features = extract(encoder, corpus, learned.parts["train"], [])
    heard = Draws(learned, corpus, None, 8.0, 0)
    seen = Draws(learned, corpus, features, 8.0, 0)
    for index in (0, 7):
        assert torch.equal(heard[index].targets[0], seen[index].targets[0])
        assert torch.equal(heard[index].inputs, heard[index].inputs)
    assert not torch.equal(heard[0].inputs, heard[1].inputs)


def test_a_loss_that_is_no_number_is_told(encoder, corpus, tmp_path):
    with pytest.raises(Diverged, match="ks tuned"):
        tune(encoder, "ks", corpus, 0, replace(RECIPE, encoder_rate=1e30), tmp_path, silent)


def test_integers_are_not_tuned(encoder, corpus, tmp_path):
    layers = tuple(replace(layer, numeric="int8") for layer in encoder.spec.layers)
    quantized = build(replace(encoder.spec, layers=layers), 0)
    with pytest.raises(Unsupported, match="integers"):
        tune(quantized, "ks", corpus, 0, RECIPE, tmp_path, silent)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, corpus):
    """The toy corpus as a manifest."""
    folder = tmp_path_factory.mktemp("spoken")
    lines = ["path,split,word"]
    for item in corpus.items:
        soundfile.write(folder / f"{item.key}.wav", corpus.waveform(item).numpy(), 16_000)
        lines.append(f"{item.key}.wav,{item.split},{item.labels['word']}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "manifest.csv")


@pytest.fixture(scope="module")
def swept(encoder, tmp_path_factory):
    """A run of a dense model, the random encoder, FBANK and two that are cut."""
    run = RunFolder(tmp_path_factory.mktemp("swept"))
    run.write_run({"model": "m"})
    whole = [Point("m", method, 0.0, 0, "d") for method in (DENSE, RANDOM, FBANK)]
    for point in [*whole, *(Point("m", "first-layers", rate, 0, "d") for rate in (0.5, 0.9))]:
        run.write_point(point)
        run.write_section(point.key, Section("compress", "done", "f"))
        model = encoder if point.method != "first-layers" else keep_layers(encoder, [0])
        store.save(model, run.model_folder(point.key))
    return str(run.path)


def command(where, data, out, **options):
    given = {"task": "ks", "data": data, "steps": "2", "precision": "no", "workers": "1"}
    pairs = {**given, **options, "out": str(out)}
    return run(["finetune", str(where), *(p for k, v in pairs.items() for p in (f"--{k}", v))])


def last_words(job):
    """What is left of a process that dies at its section: it said that it had begun, and a log."""
    ((key, name),) = job.todo
    with logs.kept(RunFolder(job.run_path).log(key, name)):
        os.write(2, b"no memory left")
    return [Started(key, name, {"cpu": "one of two"})]


class Here:
    """An executor that runs its jobs in this process; `dies`: they die at their section."""

    dies = False

    def __init__(self, workers):
        self.jobs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, job):
        self.jobs.append(pickle.loads(pickle.dumps(job)))

    def events(self):
        for job in self.jobs:
            said = last_words(job) if self.dies else []
            if not self.dies:
                job.run(said.append)
            yield from (finetune.Said(job, message) for message in said)
            yield finetune.Ended(job, "the process died of SIGKILL" if self.dies else "")


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(finetune, "Local", Here)


def test_models_of_a_run_become_records_and_a_table(swept, spoken, tmp_path, here, capsys):
    out = tmp_path / "tuned"
    assert command(swept, spoken, out, methods="first-layers", rates="0.5") == 0
    with (out / "finetune.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == [DENSE, RANDOM, "first-layers"]
    for row in rows:
        gain = float(row["tuned"]) - float(row["frozen"])
        assert float(row["gain"]) == pytest.approx(gain)
        assert (row["task"], row["metric"], row["status"]) == ("ks", "ks_acc", "done")
    shown = capsys.readouterr().out
    assert "first-layers" in shown
    last = [f"{float(rows[2][name]):.1f}" for name in ("frozen", "tuned")]
    (line,) = (line.split() for line in shown.splitlines() if "first-layers" in line)
    assert line[:5] == ["ks_acc", "first-layers", "0.5", *last]
    record = RunFolder(out).read(rows[0]["key"])
    assert record.sections["finetune.ks"].metrics["ks_acc_tuned"].better == "higher"
    assert not list(out.rglob("*.pt")), "checkpoints go when a training is done"
    before = (out / "finetune.csv").read_bytes()
    assert command(swept, spoken, out, methods="first-layers", rates="0.5") == 0
    assert (out / "finetune.csv").read_bytes() == before, "what is there is not done again"


def test_a_failure_is_recorded_with_its_reason(small_model, spoken, tmp_path, here, capsys):
    out = tmp_path / "tuned"
    assert command(small_model, spoken, out, lr="1e30", steps="4") == 1
    assert "failed: dense at 0, ks: training 'ks tuned'" in capsys.readouterr().out
    (section,) = out.glob("points/*/finetune.ks.json")
    assert json.loads(section.read_text())["status"] == "failed"
    assert command(small_model, spoken, out, steps="4") == 0, "another recipe, another training"


def test_seeds_are_points_of_their_own(small_model, spoken, tmp_path, here):
    out = tmp_path / "tuned"
    assert command(small_model, spoken, out, seeds="0,1") == 0
    with (out / "finetune.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]


def test_a_process_that_dies_is_a_failure(small_model, spoken, tmp_path, here, monkeypatch, capsys):
    monkeypatch.setattr(Here, "dies", True)
    out = tmp_path / "out"
    assert command(small_model, spoken, out) == 1
    (record,) = RunFolder(out).records()
    section = record.sections["finetune.ks"]
    log = RunFolder(out).log(record.point.key, "finetune.ks")
    assert section.reason == f"the process died of SIGKILL; its last words are in {log}"
    assert (out / section.details["log"]).read_text() == "no memory left"
    assert section.environment == {"cpu": "one of two"}
    assert f"failed: dense at 0, ks: {section.reason}" in capsys.readouterr().out
    monkeypatch.setattr(Here, "dies", False)
    assert command(small_model, spoken, out) == 1, "not without being asked"
    line = [str(small_model), "--task", "ks", "--data", spoken, "--steps", "2", "--retry-failed"]
    assert run(["finetune", *line, "--precision", "no", "--out", str(out)]) == 0
    assert not log.exists()


@pytest.mark.slow
def test_processes_of_their_own(small_model, spoken, tmp_path):
    assert command(small_model, spoken, tmp_path / "out", seeds="0,1", workers="2") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "kss"}, "did you mean 'ks'"),
        ({"task": "sv"}, "'sv' has no head that is trained with the encoder; asr"),
        ({"task": "none"}, "no task to fine-tune on"),
        ({"task": "sid"}, "labelled 'speaker'"),
        ({"lr": "0"}, "--lr 0: expected a positive number"),
        ({"precision": "int8"}, "expected one of no, bf16, fp16"),
        ({"methods": "first-layer"}, "did you mean 'first-layers'"),
        ({"rates": "0.3"}, "no model of those methods at those rates"),
        ({"rates": "1.5"}, "1.5"),
        ({"seeds": "x"}, "whole numbers"),
        ({"data": "nowhere"}, "'nowhere' does not exist"),
    ],
)
def test_bad_input_is_one_sentence(options, said, swept, spoken, tmp_path, capsys):
    out = tmp_path / "tuned"
    assert command(swept, options.pop("data", spoken), out, **options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert said in line
    assert not out.exists()


def test_what_is_neither_run_nor_model_is_named(spoken, tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert command(folder, spoken, tmp_path / "out") == 2
    assert "empty is neither a run nor a model" in capsys.readouterr().err
    assert command("bultin", spoken, tmp_path / "out") == 2
    assert "did you mean 'builtin'" in capsys.readouterr().err


def test_results_do_not_go_into_a_sweep(swept, spoken, capsys):
    assert command(swept, spoken, swept) == 2
    assert "holds a sweep" in capsys.readouterr().err
