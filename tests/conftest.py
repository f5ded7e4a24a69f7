"""What all tests share: one thread, and the folder of real speech where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("bench", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("bench")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """The folder of LibriSpeech and fsdd: $SPEECH_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("SPEECH_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}; set SPEECH_DATA to a folder that has it")
    return folder
