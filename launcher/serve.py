"""Serves an app on a socket that the supervisor holds.

    python -m launcher.serve APP_FACTORY SOCKET_FD

The port is taken before anything starts and stays taken when the server is started again: nobody else can
come in between, and clients wait for a moment instead of being refused.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

from launcher.parts import GATEWAY_PROTOCOL, LAST_REQUESTS_SECONDS


def main() -> None:
    factory, fd = sys.argv[1], int(sys.argv[2])
    config = uvicorn.Config(
        factory,
        factory=True,
        http=GATEWAY_PROTOCOL,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the gateway reads them itself
        timeout_graceful_shutdown=LAST_REQUESTS_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main()
