"""The command lines of Hearth's own processes, the same under `hearth up` and when they are started alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.config import Settings

# Under `hearth up`, streams that are still running when a server is told to stop get this long.
LAST_REQUESTS_SECONDS = 5
WORKER_THREADS = 8
GATEWAY_PROTOCOL = "gateway.protocol:Protocol"


def api_argv(settings: Settings) -> tuple[str, ...]:
    where = (settings.api_host, settings.api_port)
    return _uvicorn("controlplane.app:create_app", *where, settings.drain_seconds)


def gateway_argv(settings: Settings) -> tuple[str, ...]:
    where = (settings.gateway_host, settings.gateway_port)
    served = _uvicorn("gateway.app:create_app", *where, settings.drain_seconds)
    return (*served, "--http", GATEWAY_PROTOCOL, "--no-proxy-headers")  # the gateway reads them itself


def gateway_on_socket_argv(fd: int) -> tuple[str, ...]:
    """The gateway on a socket that it inherits; see `serve`."""
    return (sys.executable, "-m", "launcher.serve", "gateway.app:create_app", str(fd))


def worker_argv(threads: int = WORKER_THREADS, queues: str = "control,training") -> tuple[str, ...]:
    """Threads, because tasks mostly wait. Workers of one broker need to know nothing of each other."""
    options = ("--pool", "threads", "--concurrency", str(threads), "--queues", queues)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
    return (*_celery("worker"), *options, *quiet)


def beat_argv() -> tuple[str, ...]:
    """Its schedule is a sweep every second, so it has nothing to remember in a file."""
    schedule = ("--scheduler", "workers.observability.parts:TurningScheduler")
    return (*_celery("beat"), *schedule, "--loglevel", "WARNING")


def _uvicorn(app: str, host: str, port: int, drain_seconds: int) -> tuple[str, ...]:
    stop = ("--no-server-header", "--timeout-graceful-shutdown", str(drain_seconds))
    address = ("--factory", "--host", host, "--port", str(port))
    # The parts write access logs of their own.
    return (sys.executable, "-m", "uvicorn", app, *address, *stop, "--no-access-log")


def _celery(command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", "workers.celery_app", "--quiet", command)
