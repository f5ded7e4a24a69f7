"""Trackers: they hear what log.csv is told, also past a cut, and change nothing."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.errors import InputError
from encoders import tracking
from encoders.tracking import Tracking, read_trackers
from encoders.training import train

from test_training import SETTINGS, Line, Numbers, fitted  # isort: skip

CUT = 7  # after the first checkpoint, at update 5, and a report that it does not hold

Told = dict[tuple[str, int], float]  # by metric and update


def cut_and_resumed(folder: Path, *names: str) -> Tracking:
    """A training that was cut once, and told these trackers what it told log.csv."""
    heard = Tracking(names, folder, "a/method[x=1], seed 0")
    with pytest.raises(KeyboardInterrupt):
        train(Line(), Numbers(until=CUT), SETTINGS, "a line", folder, tracking=heard)
    train(Line(), Numbers(), SETTINGS, "a line", folder, tracking=heard)
    return heard


def logged(folder: Path) -> Told:
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["metric"], int(row["step"])): float(row["value"]) for row in rows}


def same(told: Told, expected: Told) -> bool:
    """All but the seconds: which of two tries they are of differs."""
    assert told.keys() == expected.keys()
    known = {pair: value for pair, value in expected.items() if pair[0] != "seconds"}
    return {pair: told[pair] for pair in known} == pytest.approx(known, rel=1e-5)


def tensorboard_events(folder: Path) -> Told:
    """As TensorBoard shows them: a file that begins anew voids what came later before it."""
    pb = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")
    found: Told = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for record in records(path.read_bytes()):
            event = pb.Event.FromString(record)
            if event.session_log.status == pb.SessionLog.START:
                found = {pair: value for pair, value in found.items() if pair[1] < event.step}
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
    return found


def records(data: bytes) -> Iterator[bytes]:
    """Of a TFRecord file: a length and its checksum, the record and its checksum."""
    while data:
        (length,) = struct.unpack_from("<Q", data)
        yield data[12 : 12 + length]
        data = data[12 + length + 4 :]


def fragments(data: bytes) -> Iterator[bytes]:
    """Of a LevelDB log behind wandb's header: blocks of 32 KiB, each of pieces of records."""
    whole, place = b"", 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the rest of the block is empty
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last piece
            yield whole
            whole = b""


def test_tensorboard_holds_what_log_csv_holds_past_a_cut(tmp_path):
    cut_and_resumed(tmp_path, "tensorboard")
    assert same(tensorboard_events(tmp_path), logged(tmp_path))
    runs = {path.parent.name for path in tmp_path.rglob("events.out.tfevents.*")}
    assert runs == {"a-method[x=1], seed 0, a line"}


def test_a_training_that_begins_anew_voids_what_it_said(tmp_path):
    heard = Tracking(("tensorboard",), tmp_path, "t")
    with pytest.raises(KeyboardInterrupt):  # before the first checkpoint
        train(Line(), Numbers(until=4), SETTINGS, "a line", tmp_path, tracking=heard)
    assert {step for _, step in tensorboard_events(tmp_path)} == {3}
    with heard.runs("a line", {}, 0, {}):
        pass
    assert tensorboard_events(tmp_path) == {}


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    cut_and_resumed(tmp_path, "mlflow")
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string=f"name = '{tracking.PROJECT}'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "a/method[x=1], seed 0, a line"
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.05"
    history = {
        (metric, entry.step): entry.value
        for metric in run.data.metrics
        for entry in client.get_metric_history(run.info.run_id, metric)
    }
    assert same(history, logged(tmp_path))


def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert read_trackers("wandb") == ("wandb",)
    cut_and_resumed(tmp_path, "wandb")
    found, ids = {}, set()
    for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime):
        for record in map(Record.FromString, fragments(path.read_bytes())):
            ids |= {record.run.run_id} - {""}
            step = record.history.step.num
            values = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            own = {(k, step): json.loads(v) for k, v in values.items() if not k.startswith("_")}
            found |= own
    assert len(ids) == 1
    assert same(found, logged(tmp_path))


def test_tracking_leaves_the_numbers_as_they_are(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "heard").mkdir()
    alone = fitted(tmp_path / "alone")
    cut_and_resumed(tmp_path / "heard", "tensorboard")
    heard = fitted(tmp_path / "heard")  # finished: it is only read
    assert all(torch.equal(value, heard[key]) for key, value in alone.items())


def test_a_finished_training_is_told_to_nobody_again(tmp_path):
    heard = cut_and_resumed(tmp_path, "tensorboard")
    before = sorted(tmp_path.rglob("*"))
    train(Line(), Numbers(until=0), SETTINGS, "a line", tmp_path, tracking=heard)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("broken", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_left_out_and_the_training_goes_on(tmp_path, monkeypatch, broken):
    from accelerate.tracking import TensorBoardTracker

    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(broken)
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(TensorBoardTracker, broken, fail)
    (tmp_path / "alone").mkdir()
    alone = fitted(tmp_path / "alone")
    with pytest.warns(UserWarning, match=r"tensorboard is told no more.*nobody listens"):
        made = fitted(tmp_path, tracking=Tracking(("tensorboard",), tmp_path, "t"))
    assert all(torch.equal(value, made[key]) for key, value in alone.items())
    assert calls == [broken]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named(monkeypatch, name):
    monkeypatch.setattr(tracking, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=rf"--tracker {name} .*pip install {name[:6]}"):
        read_trackers(name)


def test_a_tracker_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"'tensorbord'.*did you mean 'tensorboard'.*mlflow"):
        read_trackers("tensorbord")
    assert read_trackers(None) == read_trackers("") == ()


def test_wandb_without_an_account_is_refused(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    wandb.teardown()  # it keeps what another test told it
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match=r"no account.*WANDB_MODE=offline"):
        read_trackers("wandb")
