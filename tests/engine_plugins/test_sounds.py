"""What the plug-in for sounds changes of the engine. tests/gateway asks a real engine."""

from __future__ import annotations

import io
from typing import Any

import pytest
import soundfile

from workers.engine_plugins.sounds import refusing_damaged, resample_with_soxr


class Parser:
    def __init__(self, *, audio_resample_method: str = "torchaudio") -> None:
        self.method = audio_resample_method


class Chosen:
    def __init__(self, *, audio_resample_method: str = "scipy") -> None:
        self.method = audio_resample_method


def test_sounds_are_resampled_by_what_is_there() -> None:
    for parser in (Parser, Chosen):
        resample_with_soxr(parser)
    assert (Parser().method, Chosen().method) == ("soxr", "scipy")
    assert Parser(audio_resample_method="pyav").method == "pyav", "as a model asks for it"


def load(content: bytes) -> Any:
    return soundfile.read(io.BytesIO(content))


def without_pyav(content: bytes) -> Any:
    raise ImportError("Please install vllm[audio] for audio support.")


def test_a_damaged_sound_is_refused_and_not_a_failure() -> None:
    with pytest.raises(ValueError, match="the sound cannot be read: Error in WAV file"):
        refusing_damaged(load)(b"RIFF\0\0\0\0WAVE no sound")
    with pytest.raises(ValueError, match="its format is not known"):
        refusing_damaged(without_pyav)(b"no sound")


def test_a_sound_is_read_as_before() -> None:
    content = io.BytesIO()
    soundfile.write(content, [0.0, 0.5, -0.5], 8_000, format="wav")
    samples, rate = refusing_damaged(load)(content.getvalue())
    assert (samples.tolist(), rate) == ([0.0, 0.5, -0.5], 8_000)
