"""An engine's pod without an engine: for tests of what Kubernetes and Hearth do with pods.

    python stand_in.py [crashing=TEXT | unstageable=TEXT] stage|serve|addons SPEC.json

It answers as far as workers ask: health, names, adapters, and probabilities that differ from name to name. A
chat is answered with the model's place among the names, a word at a time, at a pace like an engine's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENDED = "HEARTH-ENGINE-ERROR "
WORD_SECONDS = 0.02


def main() -> None:
    *quirks, task, file = sys.argv[1:]
    said = dict(quirk.split("=", 1) for quirk in quirks)
    spec = json.loads(Path(file).read_text())
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if task == "stage" and "unstageable" in said:
        error = {"code": "NOT_FOUND", "reason": "FILE_MISSING", "message": said["unstageable"]}
        sys.exit(ENDED + json.dumps({**error, "retryable": False}))
    if task == "serve" and "crashing" in said:
        sys.exit(said["crashing"])
    if task == "serve":
        serve(os.environ["HEARTH_POD_IP"], spec["replica"]["port"], spec["replica"]["served_name"])
    if task == "addons":
        serve(os.environ["HEARTH_POD_IP"], spec["replica"]["port"] + 1, "")


def serve(host: str, port: int, base: str) -> None:
    names = [base]

    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": name} for name in names]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/stage":
                return self._answer({"path": "/staged/" + asked["uid"]})
            if self.path == "/v1/load_lora_adapter":
                names.append(asked["lora_name"])
            if self.path == "/v1/unload_lora_adapter":
                names.remove(asked["lora_name"])
            if self.path == "/v1/completions":
                chance = {"token_id:7": -1.0 - names.index(asked["model"])}
                prompt = [None] + [{"7": {"logprob": chance["token_id:7"]}} for _ in asked["prompt"][1:]]
                choice = {"prompt_logprobs": prompt, "logprobs": {"top_logprobs": [chance]}}
                return self._answer({"choices": [choice]})
            if self.path == "/v1/chat/completions":
                return self._chat(asked)
            return self._answer({})

        def _chat(self, asked: dict[str, Any]) -> None:
            """An answer of as many words as it may have; each is the model's number."""
            words = [f"{names.index(asked['model'])} "] * int(asked.get("max_tokens") or 8)
            told = {"id": "chat-1", "created": 1, "model": asked["model"], "object": "chat.completion"}
            usage = {
                "prompt_tokens": 1,
                "completion_tokens": len(words),
                "total_tokens": len(words) + 1,
            }
            if asked.get("stream"):
                return self._stream(words, told, usage)
            time.sleep(WORD_SECONDS * len(words))
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return self._answer({**told, "choices": [choice], "usage": usage})

        def _stream(self, words: list[str], told: dict[str, Any], usage: dict[str, int]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            told["object"] = "chat.completion.chunk"
            for number, word in enumerate(words, start=1):
                time.sleep(WORD_SECONDS)
                reason = "stop" if number == len(words) else None
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": reason}
                self._send({**told, "choices": [choice]})
            self._send({**told, "choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def _send(self, event: object) -> None:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()

        def _answer(self, body: object) -> None:
            said = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    # As engines do, it answers what it has begun to answer before it ends.
    server = ThreadingHTTPServer((host, port), Asked)
    server.daemon_threads = False
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
