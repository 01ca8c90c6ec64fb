"""An engine that is faster than anything in front of it: nginx with fixed answers in vLLM's form."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tools import Tools
from launcher.ports import free_port
from launcher.program import Program, plain_environment

CHUNKS = 35
PROMPT_TOKENS = 12
SLOW_SECONDS = 0.3
"""Between two chunks of a slow stream."""
CONNECTIONS = 16_000


@dataclass(frozen=True)
class Engine:
    """Three servers in one process, by what they answer: whole answers, streams, and slow streams."""

    whole: int
    stream: int
    slow: int

    @classmethod
    def anywhere(cls) -> Engine:
        return cls(free_port(), free_port(), free_port())

    @property
    def ports(self) -> dict[str, int]:
        return {"whole": self.whole, "stream": self.stream, "slow": self.slow}

    def program(self, tools: Tools, folder: Path) -> Program:
        configuration = folder / "nginx.conf"
        configuration.write_text(self._configuration(tools, folder))
        return Program(
            "nginx",
            (str(tools.nginx), "-p", str(folder), "-c", str(configuration)),
            {**plain_environment(), **tools.environment},
            folder,
            folder / "nginx.log",
            lambda _: answers(self.whole, "/health", 200),
        )

    def _configuration(self, tools: Tools, folder: Path) -> str:
        paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{name}_temp_path {folder / name};" for name in paths)
        return f"""
daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
worker_rlimit_nofile {2 * CONNECTIONS};
load_module {tools.echo_module};
events {{ worker_connections {CONNECTIONS}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on; {temporary}
  {_server(self.whole, "application/json", f"return 200 '{json.dumps(whole_answer())}';")}
  {_server(self.stream, "text/event-stream", _echoes(""))}
  {_server(self.slow, "text/event-stream", _echoes(f"echo_sleep {SLOW_SECONDS};"))}
}}
"""


def _server(port: int, kind: str, answer: str) -> str:
    models = '{"object":"list","data":[{"id":"quick","object":"model"}]}'
    return f"""
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type {kind};
    location = /health {{ return 200 ''; }}
    location = /v1/models {{ default_type application/json; return 200 '{models}'; }}
    location / {{ {answer} }}
  }}"""


def _echoes(pause: str) -> str:
    """Each event is a chunk and a packet of its own."""
    return " ".join(f"echo '{event}\n'; echo_flush; {pause}" for event in events()) + " echo_flush;"


def whole_answer() -> dict[str, Any]:
    message = {"role": "assistant", "content": "The quick brown fox jumps.", "refusal": None}
    nothing = dict.fromkeys(("annotations", "audio", "function_call", "reasoning"))
    choice = {"index": 0, "message": message | nothing, "logprobs": None, "finish_reason": "stop"}
    return {
        **_frame("chat.completion"),
        "choices": [choice | {"stop_reason": None, "token_ids": None}],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": _usage(10) | {"prompt_tokens_details": {"cached_tokens": 4}},
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def events() -> list[str]:
    """A stream as vLLM sends it: 35 chunks, the usage, and the end."""
    chunks = [_chunk({"role": "assistant", "content": ""}, 0)]
    chunks += [_chunk({"content": f" word{number}"}, number) for number in range(1, CHUNKS)]
    chunks[-1]["choices"][0] |= {"finish_reason": "stop", "stop_reason": None}
    chunks.append({**_frame("chat.completion.chunk"), "choices": [], "usage": _usage(CHUNKS - 1)})
    texts = [json.dumps(chunk, separators=(",", ":")) for chunk in chunks]
    return [f"data: {text}" for text in (*texts, "[DONE]")]


def _chunk(delta: dict[str, str], sent: int) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
    return {**_frame("chat.completion.chunk"), "choices": [choice], "usage": _usage(sent)}


def _frame(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0123456789abcdef", "object": kind, "created": 1767225600, "model": "quick"}


def _usage(completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + completion,
        "completion_tokens": completion,
    }


def answers(port: int, path: str, status: int) -> bool:
    """Whether a server is there and answers so."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("GET", path)
        return client.getresponse().status == status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()
