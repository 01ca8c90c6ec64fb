"""Every bound of the gateway in one place: counts, bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    body_bytes: int = 10 * 1024 * 1024
    body_depth: int = 64
    """Nested objects and arrays in a request."""
    body_seconds: float = 60.0
    """How long a caller may take to send an inference request."""

    send_seconds: float = 300.0
    """How long a caller may leave a piece of its answer unread."""

    in_flight: int = 8192
    """Inference requests of this gateway at one time; more are answered with 503."""
    in_flight_per_account: int = 4096
    """Of which one account may hold this many; more are answered with 429."""
    held_bytes: int = 1024 * 1024 * 1024
    """Of the bodies of all requests at one time; more are answered with 503. One account gets half of it."""

    waiting: int = 256
    """Requests that wait for a first replica; more are answered with 503."""
    waiting_bytes: int = 64 * 1024 * 1024
    wait_seconds: float = 600.0
    keep_alive_seconds: float = 10.0
    """Between two signs of life in a stream whose answer has not begun."""
    wait_look_seconds: float = 0.25
    """Between two looks for new replicas while somebody waits for one."""

    image_bytes: int = 5 * 1024 * 1024
    """The largest image that is fetched, and how long that may take."""
    image_seconds: float = 1.5

    connect_seconds: float = 5.0
    silence_seconds: float = 600.0
    """The longest wait for an engine's next byte, the first one included."""
    answer_bytes: int = 128 * 1024 * 1024
    """The largest answer that is not streamed."""
    event_bytes: int = 16 * 1024 * 1024
    """The largest single event of a stream."""
    avoid_seconds: float = 2.0
    """How long a replica that refused a connection is passed over while there is another."""

    database_seconds: float = 5.0
    """The longest wait for Postgres, at start and for a key that was never seen."""
    key_fresh_seconds: float = 1.5
    """Between two passes over the known keys. With two passes it is less than the 5 seconds within which a
    revoked key or a changed role has its effect."""
    key_pass_seconds: float = 1.5
    unknown_key_seconds: float = 2.0
    known_keys: int = 10_000
    key_lookups: int = 8
    """Lookups of unseen keys at one time, so that wrong keys cannot take the connection pool."""

    valkey_seconds: float = 0.025
    """The longest wait for Valkey while a request waits, which few requests of a busy account do."""
    valkey_look_seconds: float = 1.0

    snapshot_seconds: float = 1.0
    look_again_seconds: float = 1.0
    """The longest wait for the newest routes, of a request for a model that none of the known ones has."""
    look_again_pause: float = 0.1
    """Before each such look, so that wrong names cost one look in so long."""
    flush_seconds: float = 1.0
    usage_rows: int = 100_000
    """Rows kept in memory while Postgres is away; further ones are counted and dropped."""
    usage_batch: int = 1000

    store_seconds: float = 0.1
    """Between two writes of responses: so long another gateway may not find a new one."""
    responses_bytes: int = 256 * 1024 * 1024
    """Of responses on their way to Postgres. While there are more, what is to be stored is not answered."""
    responses_a_batch: int = 100
    responses_batch_bytes: int = 4 * 1024 * 1024
    """Of one write, which has to be done within `database_seconds`; what is larger is written by itself."""
    response_chain: int = 256
    """Responses that one may go on from, one after the other."""
    response_chain_bytes: int = 10 * 1024 * 1024
    """Of what these hold together; the limit of a request's body, since it is sent to the engine like one."""
    stored_fresh_seconds: float = 30.0
    """How old the count of an account's stored responses may be, which other gateways add to."""
    forget_seconds: float = 60.0
    """Between two looks for responses that have been kept long enough."""
