"""How a model is run: which combinations exist, and how they are named."""

from __future__ import annotations

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
