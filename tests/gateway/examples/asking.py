"""Asks through one package, in an interpreter of its own: two versions of a package do not fit into one.

    python -m tests.gateway.examples.asking CLIENT URL KEY

Lines of JSON come in, each [call, what is asked], and go out, each what was told, or
{"refused": …} where the package raises what it raises for a request that it should not have sent.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from importlib import import_module


def main() -> None:
    name, url, key = sys.argv[1:]
    module = import_module(f"tests.gateway.examples.{name}")
    client = module.Client(url, key)
    for line in sys.stdin:
        call, asked = json.loads(line)
        try:
            answer = getattr(client, call)(**asked)
            if inspect.iscoroutine(answer):
                answer = asyncio.run(answer)
        except module.REFUSED as refused:
            answer = {"refused": str(refused)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
