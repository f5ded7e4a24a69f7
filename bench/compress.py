"""`bench compress`: one model, one method, one rate, saved in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench import cards
from bench.jobs import Source
from bench.progress import Training
from compressors._base import Setting
from compressors._chain import track_method
from core.errors import Diverged, InputError, Unsupported
from core.method import Method
from core.point import Point
from encoders import store
from encoders.quantized import weights
from encoders.together import leads
from encoders.tracking import Tracking


def compress(
    model: str,
    method: Method,
    rate: float,
    out: Path,
    seed: int,
    data: str,
    subset: str | None,
    trackers: Sequence[str] = (),
) -> str:
    """Compress and save; what to tell the user. Checkpoints lie in `OUT.partial` meanwhile.

    Trackers that write files do so into `OUT.trackers`.

    Raises:
        InputError: the method does not exist for the model, or its training diverged.
    """
    dense = store.load(model)
    corpus = Source(data, subset).open() if method.uses_data else None
    partial = out.with_suffix(".partial")
    with Training() as progress:
        tracking = Tracking.beside(out, trackers, f"{method} at {rate:g}, seed {seed}")
        setting = Setting(corpus, seed, partial, progress.report, tracking)
        try:
            _, encoder, achieved = next(track_method(method, dense, (rate,), setting))
        except Diverged as error:
            raise InputError(str(error)) from error
    if isinstance(encoder, Unsupported):
        raise InputError(f"{method} does not apply to {model}: {encoder}")
    before, after = (sum(p.numel() for p in weights(e)) for e in (dense, encoder))
    if leads():
        where = f"{data}:{subset}" if subset else data
        point = Point(model, str(method), rate, seed, where)
        store.save(encoder, out, cards.origin(point, achieved))
        shutil.rmtree(partial, ignore_errors=True)
    return (
        f"{method} at {rate:g} (achieved {achieved:.4f}): {before:,} -> {after:,} parameters, "
        f"saved in {out}"
    )
