"""Speech from eSpeak NG with phone times, the same samples on every run.

eSpeak NG is GPL-3.0 and optional: it is called through its C interface, and only here. Synthesis is
deterministic only if each utterance starts from the same state, so the library is initialised once
and every utterance is made in a fork of that process, seeded by its own number. The process must
be free of torch's threads, so callers run `python -m encoders.corpora.espeak PLAN OUT`.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import soxr

from core.errors import InputError
from core.spec import SAMPLE_RATE

_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 1, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_END_OF_EVENTS, _PHONEME = 0, 7

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland", "en-029")

#: How many voice variants there are; a voice is a variant speaking with an accent.
VARIANTS = 300

#: The files of eSpeak's data folder that English needs. It lists at most 349 languages and variants
#: together and silently forgets the others, so the languages that nobody speaks here stay out.
_DATA_FILES = (
    "phondata", "phonindex", "phontab", "intonations", "en_dict", "lang/gmw/en", "lang/gmw/en-US",
    "lang/gmw/en-US-nyc", "lang/gmw/en-GB-x-rp", "lang/gmw/en-GB-scotland", "lang/gmw/en-029",
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """One utterance to be spoken: text, voice (accent and variant), manner, and its own seed."""

    text: str
    accent: str
    variant: int
    pitch: int
    pitch_range: int
    rate: int
    seed: int


@dataclass
class Speech:
    """Samples at 16 kHz (int16) and the phones: (symbol, start sample) in order."""

    samples: np.ndarray
    phones: list[tuple[str, int]]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Synthesiser:
    """The eSpeak NG library, initialised once per process."""

    def __init__(self, data_folder: Path) -> None:
        """Load the library with a private data folder, which is filled at first use.

        Raises:
            InputError: the package espeakng-loader is missing.
        """
        try:
            import espeakng_loader
        except ImportError as error:
            raise InputError(
                f"making the built-in corpus needs eSpeak NG ({error}); "
                "install it with: pip install espeakng-loader"
            ) from error
        _fill_data_folder(Path(espeakng_loader.get_data_path()), data_folder)
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint,
            ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self._rate = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, str(data_folder).encode(), _PHONEME_EVENTS | _DONT_EXIT
        )
        if self._rate <= 0:
            raise InputError(f"eSpeak NG could not read its data in {data_folder}; delete it")
        self._chunks: list[np.ndarray] = []
        self._phones: list[tuple[str, int]] = []
        self._callback = _Callback(self._collect)  # kept: the library holds only a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, prompt: Prompt) -> Speech:
        """Synthesise in a fork of this process, so that no state is carried from call to call."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(self._attempt(prompt), pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        if status != 0 or not answer:
            raise InputError(f"eSpeak NG failed on {prompt} (status {status})")
        speech = pickle.loads(answer)
        if isinstance(speech, InputError):
            raise speech
        return speech

    def _attempt(self, prompt: Prompt) -> Speech | InputError:
        """In the fork nobody is left to catch an exception, so it travels as a value."""
        try:
            return self._speak(prompt)
        except InputError as error:
            return error

    def _speak(self, prompt: Prompt) -> Speech:
        voice = f"{prompt.accent}+x{prompt.variant:03d}"
        # An unknown voice returns 2 and silently leaves the previous one in place.
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"eSpeak NG has no voice {voice!r}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(prompt.seed))
        for parameter, value in (
            (_RATE, prompt.rate),
            (_PITCH, prompt.pitch),
            (_RANGE, prompt.pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        text = prompt.text.encode()
        if self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None) != 0:
            raise InputError(f"eSpeak NG could not speak {prompt.text!r}")
        self._library.espeak_Synchronize()
        wave = np.concatenate(self._chunks).astype(np.float64) / 32768
        ratio = SAMPLE_RATE / self._rate
        wave = soxr.resample(wave, self._rate, SAMPLE_RATE)
        samples = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
        return Speech(samples, [(name, round(start * ratio)) for name, start in self._phones])

    def _collect(self, wave: Any, count: int, events: Any) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, shape=(count,)).copy())
        index = 0
        while events[index].type != _END_OF_EVENTS:
            event = events[index]
            if event.type == _PHONEME:
                address = ctypes.addressof(event) + _Event.id.offset
                name = ctypes.string_at(address, 8).split(b"\0")[0].decode("utf-8", "replace")
                self._phones.append((name, event.sample))
            index += 1
        return 0


def speak_all(prompts: list[Prompt], scratch: Path) -> Iterator[Speech]:
    """Speak the prompts in order, in a torch-free process of its own on all cores.

    Raises:
        InputError: eSpeak NG is missing or failed; its own words are in the sentence.
    """
    import subprocess

    scratch.mkdir(parents=True, exist_ok=True)
    plan, out = scratch / "prompts.json", scratch / "speech.pickle"
    plan.write_text(json.dumps([asdict(prompt) for prompt in prompts]))
    command = [sys.executable, "-m", "encoders.corpora.espeak", str(plan), str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"synthesising the built-in corpus failed: {last}")
    for part in sorted(scratch.glob("speech.pickle.*"), key=lambda p: int(p.suffix[1:])):
        with part.open("rb") as file:
            yield from pickle.load(file)  # our own file, written a moment ago
        part.unlink()


def _fill_data_folder(source: Path, target: Path) -> None:
    """Link what English needs, and write our own voice variants (see `_variant`)."""
    variants = target / "voices" / "!v"
    variants.mkdir(parents=True, exist_ok=True)
    for name in _DATA_FILES:
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(source / name)
    for index in range(VARIANTS):
        (variants / f"x{index:03d}").write_text(_variant(index))


def _variant(index: int) -> str:
    """A voice file drawn from the index: pitch, formants, voicing, roughness.

    `breath` is left out: it draws on a generator that differs from run to run.
    """
    draw = np.random.default_rng((20261, index))
    pitch = int(draw.uniform(70, 210))
    scale = draw.uniform(0.84, 1.22)
    lines = ["language variant", f"name x{index:03d}", f"pitch {pitch} {int(pitch * 1.45)}"]
    for formant in range(9):
        frequency = 100 * scale * draw.uniform(0.96, 1.04)
        height, width = draw.uniform(70, 120), draw.uniform(80, 150)
        lines.append(f"formant {formant} {frequency:.0f} {height:.0f} {width:.0f}")
    lines.append(f"voicing {int(draw.uniform(70, 130))}")
    lines.append(f"consonants {int(draw.uniform(70, 130))} {int(draw.uniform(70, 130))}")
    lines.append(f"roughness {int(draw.integers(0, 4))}")
    lines.append(f"flutter {int(draw.integers(0, 6))}")
    return "\n".join(lines) + "\n"


def _main(plan: Path, out: Path) -> None:
    """Speak a plan on every core: each forked worker takes a contiguous share of the prompts."""
    prompts = [Prompt(**entry) for entry in json.loads(plan.read_text())]
    synthesiser = Synthesiser(plan.parent / "espeak-ng-data")
    workers = min(os.cpu_count() or 1, max(1, len(prompts)))
    bounds = np.linspace(0, len(prompts), workers + 1).astype(int)
    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            share = prompts[bounds[worker] : bounds[worker + 1]]
            _speak_share(synthesiser, share, Path(f"{out}.{worker}"))
        children.append(child)
    if any(os.waitpid(child, 0)[1] != 0 for child in children):
        sys.exit(1)


def _speak_share(synthesiser: Synthesiser, prompts: list[Prompt], out: Path) -> NoReturn:
    """A worker's whole life."""
    try:
        speech = [synthesiser.speak(prompt) for prompt in prompts]
        with out.open("wb") as file:
            pickle.dump(speech, file)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    from encoders.corpora import espeak  # its classes must not be pickled as __main__'s

    try:
        espeak._main(Path(sys.argv[1]), Path(sys.argv[2]))
    except InputError as error:
        sys.exit(str(error))
