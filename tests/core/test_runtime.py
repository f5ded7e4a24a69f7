"""How a model is run: which combinations exist, and how they are named."""

from __future__ import annotations

from importlib import metadata

import pytest

from core.errors import InputError
from core.runtime import Runtime


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "gpu"}, "cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "cuda:N"),
        ({"dtype": "float8"}, "did you mean .* expected float32, float16, bfloat16"),
        ({"attention": "flesh"}, "did you mean 'flash'"),
        ({"tf32": True}, "--device cuda"),
        ({"cuda_graphs": True}, "--device cuda"),
        ({"attention": "cudnn"}, "--device cuda"),
        ({"device": "cuda", "cuda_graphs": True, "compile": True}, "exclude each other"),
        ({"engine": "onnx"}, "did you mean 'onnxruntime'"),
        ({"engine": "onnxruntime", "device": "cuda"}, "on CPUs alone"),
        ({"engine": "onnxruntime", "dtype": "float16"}, "dtype=float16.* in float32"),
        ({"engine": "onnxruntime", "compile": True}, "torch's own"),
        ({"engine": "onnxruntime", "attention": "math"}, "attention=math"),
        ({"engine": "onnxruntime", "cuda_graphs": True}, "on CPUs alone"),
        ({"engine": "onnxruntime", "tf32": True}, "on CPUs alone"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Runtime(**options)


def test_the_name_tells_all_that_differs() -> None:
    assert str(Runtime()) == "cpu"
    assert Runtime().usual
    assert str(Runtime("cuda:1", dtype="bfloat16", compile=True, tf32=True)) == (
        "cuda1-bfloat16-compile-tf32"
    )
    assert str(Runtime(threads=2, attention="math")) == "cpu-2threads-math"
    assert Runtime(**Runtime(threads=2).columns()) == Runtime(threads=2)


def test_another_engine_stands_with_its_version_and_torch_as_it_always_did() -> None:
    pytest.importorskip("onnxruntime")
    runtime = Runtime(engine="onnxruntime")
    assert str(runtime) == "cpu-onnxruntime-float32"
    assert runtime.columns()["engine"] == f"onnxruntime {metadata.version('onnxruntime')}"
    assert runtime.columns()["dtype"] == "float32"
    assert "engine" not in Runtime().columns()  # records' fingerprints are made of these
