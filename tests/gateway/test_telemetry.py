"""What the gateway counts: by account and deployment, and never by what callers make up."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(gateway):
    """The numbers by their name and the values of their labels, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(gateway.telemetry.render().decode())
        for sample in family.samples
    }


MAIN = "accounts/acme/deployments/main"


def test_requests_tokens_and_first_bytes_are_counted_by_account_and_deployment(served):
    served.openai.completions.create(model=served.base, prompt="count")
    served.http.post("/v1/completions", json={"model": "made-up", "prompt": "x"})
    found = samples(served.running.gateway)
    assert found[("hearth_gateway_inference_requests_total", "acme", MAIN, "200")] == 1
    assert found[("hearth_gateway_tokens_total", "acme", MAIN, "prompt")] == 7
    assert found[("hearth_gateway_tokens_total", "acme", MAIN, "cached")] == 4
    assert found[("hearth_gateway_tokens_total", "acme", MAIN, "completion")] == 3
    assert found[("hearth_gateway_first_byte_seconds_count", MAIN, "completions")] == 1
    assert found[("hearth_gateway_requests_in_flight", MAIN)] == 0
    assert found[("hearth_gateway_requests_total", "/v1/completions", "404")] == 1
    assert not any("made-up" in part for key in found for part in key)


def test_replicas_of_which_nothing_came_are_counted(served):
    served.engine.fault = "500"
    served.http.post("/v1/completions", json={"model": served.base, "prompt": "x"})
    found = samples(served.running.gateway)
    assert found[("hearth_gateway_engine_failures_total", MAIN, "failed")] == 1
    assert found[("hearth_gateway_inference_requests_total", "acme", MAIN, "502")] == 1
