"""Every parameter of `embeddings` and of `rerank`."""

from __future__ import annotations

from gateway.checks import boolean, integer, one_of, string
from gateway.parameters import Fate, Parameter

MOST_TEXTS = 2048
"""Inputs of one request, and documents."""

ISOLATION = Parameter(
    "prompt_cache_isolation_key",
    Fate.TRANSLATED,
    check=string,
    note="As in chat. The header `x-prompt-cache-isolation-key` means the same.",
)
MODEL = Parameter("model", Fate.TRANSLATED, check=string, note="Required: which model is asked.")

EMBEDDINGS: tuple[Parameter, ...] = (
    MODEL,
    Parameter(
        "input",
        Fate.TRANSLATED,
        note=f"Required. Text, a list of texts, the ids of one text's tokens, or a list of such lists; "
        f"{MOST_TEXTS:,} at most. What is longer than the model's context is refused.",
    ),
    Parameter("encoding_format", Fate.PASSED, check=one_of("float", "base64")),
    Parameter(
        "dimensions",
        Fate.PASSED,
        check=integer(1),
        note="So many of the first numbers of each vector. For models that were trained for it.",
    ),
    Parameter(
        "normalize",
        Fate.TRANSLATED,
        check=boolean,
        note="Whether vectors get the length 1; the model's own way when unset.",
    ),
    ISOLATION,
    Parameter("user", Fate.HINT, check=string),
    Parameter("prompt_cache_key", Fate.HINT, check=string),
    Parameter("fanout_size", Fate.REFUSED),
    Parameter("perf_metrics_in_response", Fate.REFUSED),
    Parameter("prompt_cache_max_len", Fate.REFUSED),
    Parameter("prompt_template", Fate.REFUSED, note="put the words before the input"),
    Parameter("raw_output", Fate.REFUSED),
    Parameter("return_logits", Fate.REFUSED),
)

RERANK: tuple[Parameter, ...] = (
    MODEL,
    Parameter("query", Fate.PASSED, check=string, note="Required."),
    Parameter("documents", Fate.TRANSLATED, note=f"Required. A list of texts, {MOST_TEXTS:,} at most."),
    Parameter("top_n", Fate.PASSED, check=integer(1), note="So many of the best; all when unset."),
    Parameter(
        "return_documents",
        Fate.TRANSLATED,
        check=boolean,
        note="True when unset: each result has the document as `text`.",
    ),
    ISOLATION,
    Parameter("user", Fate.HINT, check=string),
    Parameter("task", Fate.REFUSED, note="put the words before the query"),
)
