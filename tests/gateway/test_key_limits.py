"""What one key may use of what its account may; a limit binds whatever models the key asks."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update

from controlplane.resources.tables import ApiKeyRow
from tests.gateway.serving import wait_until


def hold_to(served, db, **limits):
    with db.session() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.account_id == "acme").values(**limits))
    known = served.running.gateway.keys._known
    assert served.http.get("/v1/models").status_code == 200  # the key is known from now on
    [(name, value)] = limits.items()
    wait_until(lambda: [getattr(key, name) for key in known.values()] == [value])


def ask(served, **fields):
    return served.http.post("/v1/completions", json={"model": served.base, "prompt": "count", **fields})


def refused(answer):
    assert answer.status_code == 429
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("RESOURCE_EXHAUSTED", "rate_limit_error")
    assert int(answer.headers["retry-after"]) >= 1
    return error["message"]


def test_a_key_makes_no_more_requests_a_minute_than_it_may(served, db):
    hold_to(served, db, requests_per_minute=2)
    assert [ask(served).status_code for _ in range(2)] == [200, 200]
    message = refused(ask(served))
    assert "requestsPerMinute of the API key" in message
    assert "it may make 2 requests a minute, and 2 were made in the last minute" in message
    assert served.http.get("/v1/models").status_code == 200, "only inference counts"
    assert len(served.engine.bodies) == 2


def test_a_keys_tokens_are_those_of_prompts_and_answers(served, db):
    hold_to(served, db, tokens_per_minute=15)
    assert [ask(served).status_code for _ in range(2)] == [200, 200]  # 10 tokens each
    message = refused(ask(served, stream=True))
    assert "tokensPerMinute of the API key" in message
    assert "15 tokens a minute, and 20 came in the last minute" in message


def test_a_key_has_no_more_requests_in_flight_than_it_may(served, db):
    hold_to(served, db, concurrent_requests=1)
    served.engine.may_start.clear()
    admission = served.running.gateway.admission
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, served)
        assert wait_until(lambda: admission.held_of_keys)
        try:
            for answer in (ask(served), served.http.get("/v1/responses")):
                assert "concurrentRequests of the API key" in refused(answer)
        finally:
            served.engine.may_start.set()
        assert held.result().status_code == 200
    assert wait_until(lambda: not admission.held_of_keys)
    assert ask(served).status_code == 200
