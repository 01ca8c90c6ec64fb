"""The spans of an inference request, with OpenTelemetry's own names for what they say."""

from __future__ import annotations

from controlplane.observability.traces import Attributes, Trace
from gateway.metering import Tokens
from gateway.snapshot import Route

OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "embeddings": "embeddings"}
"""By the engine's endpoint; of others its own name stands."""


def engine_step(trace: Trace, endpoint: str, route: Route) -> Trace:
    """The step of asking an engine, from the first byte that it is sent to the last of its answer."""
    if not trace.trace_id:
        return trace
    operation, model = OPERATIONS.get(endpoint, endpoint), route.model.name
    about: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": model,
        "hearth.deployment": route.deployment.name,
    }
    trace.note(about)
    return trace.step(f"{operation} {model}", "CLIENT", about)


def usage_of(tokens: Tokens) -> Attributes:
    return {
        "gen_ai.usage.input_tokens": tokens.prompt,
        "gen_ai.usage.cache_read.input_tokens": tokens.cached,
        "gen_ai.usage.output_tokens": tokens.completion,
    }
