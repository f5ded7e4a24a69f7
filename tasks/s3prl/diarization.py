"""The diarization error rate of s3prl's predictions, as SUPERB reports it.

Speech where a speaker's probability is above a threshold, after a median filter; of ten settings
the one with the lowest error on the test set counts (s3prl's `downstream/diarization/score.sh`).
Overlaps are scored and there is no collar, as dscore has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, product
from pathlib import Path

import numpy as np

from core.spec import SAMPLE_RATE

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIANS = (1, 11)

#: From and to in seconds.
Turn = tuple[float, float]
#: The turns of each speaker.
Turns = Mapping[str, Sequence[Turn]]


def lowest_error(predictions: Path, truth: Path, shift: int) -> float:
    """Percent, over all recordings, of the best setting.

    predictions: the folder of .h5 files, T_hat (frames, speakers) in each. truth: an RTTM file.
    shift: samples per frame.
    """
    import h5py

    reference = read_rttm(truth)
    guesses = {}
    for file in sorted(predictions.glob("*.h5")):
        with h5py.File(file, "r") as content:
            guesses[file.stem] = content["T_hat"][:]
    settings = product(MEDIANS, THRESHOLDS)
    return min(
        error_rate(reference, {name: turns(g, shift, *setting) for name, g in guesses.items()})
        for setting in settings
    )


def turns(probabilities: np.ndarray, shift: int, median: int, threshold: float) -> Turns:
    """Turns by speaker, to 10 ms as RTTM files have them. probabilities: (frames, speakers)."""
    from scipy.signal import medfilt

    active = np.where(probabilities > threshold, 1, 0)
    if median > 1:
        active = medfilt(active, (median, 1))
    seconds = shift / SAMPLE_RATE
    found: dict[str, list[Turn]] = {}
    for speaker, frames in enumerate(active.T):
        changes = np.flatnonzero(np.diff(np.pad(frames, 1)))
        pairs = zip(changes[::2] * seconds, np.diff(changes)[::2] * seconds, strict=True)
        found[str(speaker)] = [(round(a, 2), round(a, 2) + round(d, 2)) for a, d in pairs]
    return found


def read_rttm(file: Path) -> dict[str, Turns]:
    """Turns by recording and speaker."""
    found: dict[str, dict[str, list[Turn]]] = defaultdict(lambda: defaultdict(list))
    for line in file.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields and fields[0] == "SPEAKER":
            start, length = float(fields[3]), float(fields[4])
            found[fields[1]][fields[7]].append((start, start + length))
    return dict(found)


def error_rate(truth: Mapping[str, Turns], guess: Mapping[str, Turns]) -> float:
    """Missed, false and confused speech in percent of the speech, over all recordings."""
    wrong = spoken = 0.0
    for name in sorted({*truth, *guess}):
        errors, speech = _compare(truth.get(name, {}), guess.get(name, {}))
        wrong, spoken = wrong + errors, spoken + speech
    return 100 * wrong / spoken


def _compare(truth: Turns, guess: Turns) -> tuple[float, float]:
    """Seconds of error under the best pairing of speakers, and of speech, in one recording."""
    from scipy.optimize import linear_sum_assignment

    spoken = chain(truth.values(), guess.values())
    cuts = np.unique(list(chain.from_iterable(chain.from_iterable(spoken))))
    if len(cuts) < 2:
        return 0.0, 0.0
    lengths, middles = np.diff(cuts), (cuts[:-1] + cuts[1:]) / 2
    a, b = _active(truth, middles), _active(guess, middles)
    together = (a[:, None] & b[None]) @ lengths
    rows, columns = linear_sum_assignment(together, maximize=True)
    most = np.maximum(a.sum(0), b.sum(0)) @ lengths
    return float(most - together[rows, columns].sum()), float(a.sum(0) @ lengths)


def _active(turns: Turns, times: np.ndarray) -> np.ndarray:
    """Whether each speaker speaks at each time: (speakers, times)."""
    rows = [
        np.any([(start <= times) & (times < end) for start, end in spoken] or [times < 0], axis=0)
        for spoken in turns.values()
    ]
    return np.array(rows, dtype=bool).reshape(len(rows), len(times))
