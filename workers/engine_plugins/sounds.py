"""Sounds of any rate, and refusals of what is no sound, as a plug-in of the engine.

What a model hears has its rate of samples. The engine changes any other to it with torchaudio, of which there
is no build for the CPU among Python's packages; soxr does the same. A sound that is damaged the engine takes
for a failure of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any


def listen_well() -> None:
    """Called by the engine in each of its processes as it starts."""
    from vllm.multimodal.media import audio
    from vllm.multimodal.parse import MultiModalDataParser

    if find_spec("torchaudio") is None:
        resample_with_soxr(MultiModalDataParser)
    if find_spec("soundfile") is not None and not hasattr(audio.load_audio, "__wrapped__"):
        audio.load_audio = refusing_damaged(audio.load_audio)


def resample_with_soxr(parser: Any) -> None:
    """Of the class that takes a prompt apart: what it resamples with where a model does not say it."""
    defaults = parser.__init__.__kwdefaults__
    if defaults["audio_resample_method"] == "torchaudio":
        defaults["audio_resample_method"] = "soxr"


def refusing_damaged(load: Callable[..., Any]) -> Callable[..., Any]:
    """`load`, with a ValueError, which is a refusal of the request, for what cannot be read."""
    import soundfile

    @wraps(load)
    def load_or_refuse(*args: Any, **kwargs: Any) -> Any:
        try:
            return load(*args, **kwargs)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"the sound cannot be read: {error.error_string}") from None
        except ImportError:  # of PyAV, which would have been tried next
            raise ValueError("the sound cannot be read: its format is not known") from None

    return load_or_refuse
