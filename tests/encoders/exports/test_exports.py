"""What is exported gives the encoder's hidden states, in an interpreter that has none of ours."""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import InputError, Unsupported
from core.spec import ConvFrontEnd, Exits, LayerSpec, MelFrontEnd, ModelSpec, Positions, Shortening
from encoders import build, check, cut, exports, zoo
from encoders.exporting import export, exporting
from encoders.exports import _bundle, _integers
from encoders.exports._graph import prepare
from encoders.exports._parity import compare
from encoders.model import Encoder
from encoders.quantized import Quantized

MEL = replace(zoo.tiny(), layers=zoo.tiny().layers[:2])
CONV = ModelSpec(
    "wavlm", ConvFrontEnd((8,) * 7), 24, 4, 6, (LayerSpec.dense(4, 6, 40),) * 2,
    Positions(8, 4, gated_buckets=16, gated_distance=12),
)  # fmt: skip
HUBERT = replace(CONV, family="hubert", positions=Positions(8, 4))
LARGE = replace(
    CONV, front_end=ConvFrontEnd((8,) * 7, norm="layer", bias=True), norm_first=True,
    normalize_waveform=True,
)  # fmt: skip


def _cut(spec: ModelSpec) -> Encoder:
    """Heads, rows and widths that differ from layer to layer, one layer without any head."""
    uneven = (LayerSpec((2, 0), (6, 3), (4, 6), 20, (("fc1", 5),)), LayerSpec((1,), (6,), (6,), 7))
    return build(replace(spec, layers=uneven), seed=0)


MODELS: dict[str, Any] = {
    "mel": lambda: build(MEL, seed=0),
    "conv": lambda: build(CONV, seed=0),
    "large": lambda: build(LARGE, seed=0),
    "cut": lambda: _cut(CONV),
    "deltas": lambda: build(replace(MEL, front_end=MelFrontEnd(20, stack=2, deltas=1)), seed=0),
    "keep-last": lambda: build(replace(MEL, front_end=MelFrontEnd(40, keep_last=True)), seed=0),
    "mean": lambda: build(replace(MEL, shortening=Shortening("mean", 2.5)), seed=0),
    "strided": lambda: build(replace(MEL, shortening=Shortening("conv", 3)), seed=0),
    "cif": lambda: build(replace(MEL, shortening=Shortening("cif", 1.0, 1.4)), seed=0),
    "exits": lambda: build(replace(MEL, exits=Exits(5)), seed=0),
    "int8": lambda: cut.quantize(build(MEL, seed=0), "int8"),
    "int4": lambda: cut.quantize(build(MEL, seed=0), "int4"),
    "causal": lambda: build(replace(MEL, causal=True), seed=0),
}
ONLY_CODE: dict[str, Any] = {
    "leaving": lambda: build(replace(MEL, exits=Exits(5, threshold=1.6)), seed=0),
    "bfloat16": lambda: build(replace(MEL, dtype="bfloat16"), seed=0),
}


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    noise = 0.1 * torch.randn(3, 9000, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([9000, 4321, 7000])
    return noise.masked_fill(torch.arange(9000)[None] >= lengths[:, None], 0.0), lengths


def _assert_same(states: torch.Tensor, encoder: Encoder) -> None:
    waveforms, lengths = _batch()
    with torch.no_grad():
        hidden = encoder(waveforms, lengths)
    expected = torch.stack(hidden.states).float()
    valid = torch.arange(expected.shape[2])[None] < hidden.lengths[:, None]
    level = expected[:, valid].square().mean().sqrt()
    assert states.shape == expected.shape
    assert (states.float() - expected)[:, valid].abs().max() < check.tolerance(encoder.spec) * level


@pytest.fixture(scope="module")
def bundled() -> Iterator[types.ModuleType]:
    """The one file that imports nothing of ours, as a module."""
    module = types.ModuleType("bundled")
    sys.modules["bundled"] = module  # where dataclasses look for their types
    exec(compile(_bundle.bundle(), "bundled.py", "exec"), module.__dict__)
    yield module
    del sys.modules["bundled"]


@pytest.mark.parametrize("name", [*MODELS, *ONLY_CODE])
def test_the_bundled_code_computes_the_same(name: str, bundled: types.ModuleType) -> None:
    encoder = (MODELS | ONLY_CODE)[name]().eval()
    copy = bundled.Encoder(bundled.ModelSpec.from_json(encoder.spec.to_json())).eval()
    copy.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        _assert_same(torch.stack(copy(*_batch()).states), encoder)


@pytest.mark.parametrize(
    "last", ["encoders/exports/_transformers_model.py", "tasks/s3prl/upstream.py"]
)
def test_the_bundled_code_imports_nothing_of_ours(last: str) -> None:
    tree = ast.parse(_bundle.bundle(last))
    wanted = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    wanted |= {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }
    tops = {(name or "").split(".")[0] for name in wanted}
    assert not tops & {"core", "encoders", "tasks", "torchao"}


def test_no_two_modules_of_the_bundle_have_a_name_in_common() -> None:
    """One would take the other's place without a word."""
    names = [
        name
        for path in _bundle.MODULES
        for node in ast.parse((_bundle.ROOT / path).read_text(encoding="utf-8")).body
        for name in _defined(node)
    ]
    assert sorted(names) == sorted(set(names))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("name", MODELS)
def test_torchscript_computes_the_same_for_other_sizes(name: str, tmp_path: Path) -> None:
    encoder = MODELS[name]().eval()
    exports.write(encoder, "torchscript", tmp_path)
    with torch.no_grad():
        states, frames = torch.jit.load(tmp_path / "model.ts")(*_batch())
    _assert_same(states, encoder)
    assert frames.tolist() == encoder(*_batch()).lengths.tolist()


@pytest.mark.parametrize("numeric", ["int8", "int8-dynamic", "int4", "int4-dynamic"])
@pytest.mark.parametrize("bias", [True, False])
def test_products_with_integers_are_those_of_torchao(numeric: str, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    linear = Quantized(24, 10, numeric, 8 if "int4" in numeric else 0, bias)
    linear.fill(torch.randn(10, 24, generator=generator))
    x = 3 * torch.randn(2, 5, 24, generator=generator)
    with torch.no_grad():
        assert torch.allclose(_integers.multiply(linear, x), linear(x), atol=1e-5)


def test_exporting_ends_with_the_export(tmp_path: Path) -> None:
    with export():
        assert exporting()
    assert not exporting()
    with pytest.raises(KeyError), export():
        raise KeyError
    assert not exporting()


def test_a_graph_is_a_copy() -> None:
    encoder = build(CONV, seed=0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    graph = prepare(encoder)
    for parameter in graph.parameters():
        parameter.data.zero_()
    assert list(encoder.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("target", ["onnx", "torchscript", "torch-export"])
def test_a_graph_cannot_be_left_early(target: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="huggingface or s3prl"):
        exports.write(ONLY_CODE["leaving"](), target, tmp_path)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'torchscript'"):
        exports.write(build(MEL, seed=0), "torchscrip", tmp_path)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript.* pip install '\.\[onnx\]'"):
        exports.write(build(MEL, seed=0), "onnx", tmp_path)


@pytest.mark.slow
def test_parity_is_compared_in_another_process_and_sees_a_wrong_weight(tmp_path: Path) -> None:
    encoder = build(HUBERT, seed=0).eval()
    usage = exports.write(encoder, "s3prl", tmp_path)
    rows = compare(encoder, usage, tmp_path)
    assert {len(row.samples) for row in rows} == {1, 3, 4}
    assert max(row.difference for row in rows) < 1e-4
    with torch.no_grad():
        encoder.layers[1].ffn_norm.bias += 0.1
    assert min(row.difference for row in compare(encoder, usage, tmp_path)) > 1e-3


def test_what_does_not_run_is_one_sentence(tmp_path: Path) -> None:
    usage = exports.write(build(HUBERT, seed=0), "s3prl", tmp_path)
    with pytest.raises(InputError, match=r"does not run here: .*encoders") as caught:
        compare(build(HUBERT, seed=0), replace(usage, load="import encoders"), tmp_path)
    assert "\n" not in str(caught.value)


FOREIGN = [
    *((target, name) for target in ("onnx", "torch-export") for name in MODELS),
    *(("huggingface", name) for name in ("mel", "cut", "cif", "leaving", "int8", "bfloat16")),
    *(("s3prl", name) for name in ("mel", "cut", "leaving", "int8")),
    *((target, "dynamic") for target in exports.names()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "name"), FOREIGN)
def test_it_runs_without_this_package(target: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxscript", "huggingface": "transformers"}.get(target, "torch"))
    makers = {**MODELS, **ONLY_CODE, "dynamic": lambda: cut.quantize(build(MEL, 0), "int8-dynamic")}
    encoder = makers[name]().eval()
    rows = compare(encoder, exports.write(encoder, target, tmp_path), tmp_path)
    assert len(rows) == 7
    assert max(row.difference for row in rows) < check.tolerance(encoder.spec)


@pytest.mark.slow
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm"])
def test_a_uniform_shape_is_a_class_of_transformers(
    family: str, layered: bool, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    shape = replace(LARGE if layered else CONV, family=family)
    shape = shape if family == "wavlm" else replace(shape, positions=HUBERT.positions)
    rows = tuple(replace(layer, ffn=30) for layer in shape.layers)  # rows cut in all layers alike
    encoder = build(replace(shape, layers=rows), seed=0).eval()
    usage = exports.write(encoder, "huggingface", tmp_path)
    assert "trust_remote_code" not in usage.code
    assert not list(tmp_path.glob("*.py"))
    assert re.search(r'"intermediate_size": 30', (tmp_path / "config.json").read_text())
    assert max(row.difference for row in compare(encoder, usage, tmp_path)) < 1e-3


@pytest.mark.slow
def test_integers_stay_integers_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    import onnx

    encoder = cut.quantize(build(MEL, seed=0), "int8-dynamic")
    exports.write(encoder, "onnx", tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 6 * len(MEL.layers)
    integers = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert sum(len(t.raw_data) for t in integers) >= sum(
        layer.weights(role, MEL.dim) for layer in MEL.layers for role in ("fc1", "fc2")
    )
