"""Read audio files: whatever they hold becomes mono float32 at 16 kHz."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from core.errors import InputError
from core.spec import SAMPLE_RATE

SUFFIXES = (".aiff", ".flac", ".mp3", ".ogg", ".opus", ".wav")

#: Below this a front end may give no frame at all (two stacked mel frames span 35 ms).
MIN_SECONDS = 0.05
#: Beyond this the header is wrong: a stream that was cut off claims the greatest length there is.
MAX_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Header:
    """What a file says of itself. frames: samples per channel at its own rate."""

    frames: int
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Length after conversion, a whole number of samples at 16 kHz."""
        return round(self.frames * SAMPLE_RATE / self.rate) / SAMPLE_RATE

    @property
    def notes(self) -> list[str]:
        """What has to be converted."""
        notes = []
        if self.rate != SAMPLE_RATE:
            notes.append(f"{self.rate} Hz resampled to {SAMPLE_RATE} Hz")
        if self.channels != 1:
            notes.append(f"{self.channels} channels averaged to one")
        return notes


def read_header(path: Path) -> Header:
    """Length, rate and channels without decoding the sound.

    Raises:
        InputError: the file is missing, no audio file, or too short to hold a frame.
    """
    with _open(path) as file:
        return _checked(path, file)


def read_audio(path: Path) -> tuple[np.ndarray, list[str]]:
    """The sound as (samples,) float32 at 16 kHz, and what was converted for that.

    Raises:
        InputError: the file is missing, corrupt, truncated, or too short to hold a frame.
    """
    with _open(path) as file:
        header = _checked(path, file)
        try:
            sound = file.read(dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise _corrupt(path, str(error)) from error
    if len(sound) != header.frames:
        raise _corrupt(path, f"{len(sound)} of {header.frames} samples")
    if not np.isfinite(sound).all():
        raise _corrupt(path, "samples that are not finite")
    mono = sound.mean(axis=1, dtype=np.float32)
    if header.rate != SAMPLE_RATE:
        mono = _fit(soxr.resample(mono, header.rate, SAMPLE_RATE), header)
    return np.ascontiguousarray(mono), header.notes


def describe(headers: Iterable[Header]) -> tuple[str, ...]:
    """What is converted in a corpus, one sentence per kind and not per file."""
    headers = list(headers)
    counts = Counter(note for header in headers for note in header.notes)
    return tuple(f"{note} ({n} of {len(headers)} files)" for note, n in sorted(counts.items()))


def _open(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise InputError(f"audio file {str(path)!r} does not exist; check the path")
    try:
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise _corrupt(path, str(error)) from error


def _checked(path: Path, file: soundfile.SoundFile) -> Header:
    header = Header(file.frames, file.samplerate, file.channels)
    if not MIN_SECONDS <= header.seconds <= MAX_SECONDS:
        raise InputError(
            f"audio file {str(path)!r} lasts {header.seconds:g} s by its header; expected "
            f"{MIN_SECONDS} s to 24 h, so mend it or leave it out"
        )
    return header


def _corrupt(path: Path, reason: str) -> InputError:
    reason = reason.removeprefix(f"Error opening {str(path)!r}: ").rstrip(".")
    return InputError(
        f"audio file {str(path)!r} cannot be read ({reason}); expected one of "
        f"{', '.join(SUFFIXES)} in good order, so fetch it again or remove it"
    )


def _fit(sound: np.ndarray, header: Header) -> np.ndarray:
    """Exactly as many samples as the header promises: resamplers differ by one at the end."""
    wanted = round(header.seconds * SAMPLE_RATE)
    return np.pad(sound[:wanted], (0, max(0, wanted - len(sound))))
