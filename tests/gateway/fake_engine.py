"""A stand-in for an engine that speaks vLLM's wire shapes over real HTTP.

It says nothing about vLLM: it lets the tests steer what an engine does (wait, die, refuse, go on for ever)
to see what the gateway makes of it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from functools import partial
from typing import Any

from tests.gateway.serving import until_set

CONTEXT_LENGTH = 128


class FakeEngine:
    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.active = 0
        self.left = 0
        """Requests whose caller closed the connection before they were answered."""
        self.tokens = ["one ", "two ", "three"]
        self.finish = "stop"
        self.endless = False
        self.fault = ""
        """`500`, `400`, `die-midway`, `error-first` or `error-midway`."""
        self.code = 400
        """Of the fault `error-first`."""
        self.url = ""
        self.complaint = "top_p is bad (parameter=top_p, value=7)"
        self.may_start = threading.Event()
        """Cleared, the engine holds its first event back; the headers are sent at once."""
        self.may_start.set()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body in self.requests]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        body = json.loads(await _body(receive))
        self.requests.append((scope["path"], body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.active += 1
        work = asyncio.create_task(self._answer(scope["path"], body, send))
        gone = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            else:
                self.left += 1
        finally:
            work.cancel()
            gone.cancel()
            self.active -= 1

    async def _answer(self, path: str, body: dict[str, Any], send: Any) -> None:
        if body["model"] not in self.names:
            await _send_json(send, 404, _error(404, f"The model `{body['model']}` does not exist."))
        elif path == "/tokenize":
            text = json.dumps(body.get("messages", body.get("prompt")))
            await _send_json(send, 200, {"count": len(text.split()), "max_model_len": CONTEXT_LENGTH})
        elif self.fault in ("400", "500"):
            refusal = f"{body['model']}: {self.complaint}"
            message = refusal if self.fault == "400" else "CUDA error in /opt/worker.py"
            await _send_json(send, int(self.fault), _error(int(self.fault), message))
        elif body.get("stream"):
            await self._stream(path, body, send)
        else:
            await until_set(self.may_start)
            answers = {"/v1/embeddings": _embeddings, "/v1/rerank": _rerank}
            await _send_json(send, 200, answers.get(path, partial(self._whole, path))(body))

    def _whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": self.finish,
            "stop_reason": None,
            "token_ids": None,
        }
        if path.endswith("chat/completions"):
            choice["message"] = {"role": "assistant", "content": "".join(self.tokens), "reasoning": None}
            choice["logprobs"] = self._logprobs(self.tokens) if body.get("logprobs") else None
        else:
            choice |= {"text": "".join(self.tokens), "prompt_logprobs": None}
        return {
            "id": "cmpl-1",
            "object": "chat.completion" if "messages" in body else "text_completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": self._usage(len(self.tokens)) | {"prompt_tokens_details": {"cached_tokens": 4}},
            "system_fingerprint": "vllm-1",
            "kv_transfer_params": None,
        }

    async def _stream(self, path: str, body: dict[str, Any], send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        await _send_part(send, b": hello\n\n")
        await until_set(self.may_start)
        if self.fault == "error-first":
            await _send_event(send, _error(self.code, f"{body['model']} cannot do that"))
            await _send_event(send, "[DONE]")
            return
        sent = 0
        while self.endless or sent < len(self.tokens):
            token = self.tokens[sent % len(self.tokens)]
            sent += 1
            last = not self.endless and sent == len(self.tokens)
            await _send_event(send, self._chunk(path, body, token, sent, self.finish if last else None))
            if sent == 2 and self.fault == "die-midway":
                return
            if sent == 2 and self.fault == "error-midway":
                await _send_event(send, _error(500, "EngineDeadError at /opt/worker.py"))
                return
            await asyncio.sleep(0.01 if self.endless else 0)
        if body["stream_options"].get("include_usage"):
            usage = self._usage(sent) | {"prompt_tokens_details": {"cached_tokens": 4}}
            await _send_event(send, {**self._frame(body), "choices": [], "usage": usage})
        await _send_event(send, "[DONE]")
        await send({"type": "http.response.body", "body": b""})

    def _chunk(
        self, path: str, body: dict[str, Any], token: str, sent: int, finish: str | None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "stop_reason": None}
        if path.endswith("chat/completions"):
            choice["delta"] = {"content": token} if sent > 1 else {"role": "assistant", "content": token}
            choice["logprobs"] = self._logprobs([token]) if body.get("logprobs") else None
        else:
            choice["text"] = token
        chunk = {**self._frame(body), "choices": [choice]}
        if body["stream_options"].get("continuous_usage_stats"):
            chunk["usage"] = self._usage(sent)
        return chunk

    def _frame(self, body: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if "messages" in body else "text_completion"
        return {"id": "cmpl-1", "object": kind, "created": 1, "model": body["model"]}

    def _usage(self, completion: int) -> dict[str, Any]:
        return {"prompt_tokens": 7, "completion_tokens": completion, "total_tokens": 7 + completion}

    def _logprobs(self, tokens: list[str]) -> dict[str, Any]:
        return {
            "content": [
                {"token": token, "logprob": -0.5, "top_logprobs": [{"token": token, "logprob": -0.5}]}
                for token in tokens
            ]
        }


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vector: Any = [0.5, 0.25] if body.get("encoding_format") != "base64" else "AAAAPwAAgD4="
    return {
        "id": "embd-1",
        "object": "list",
        "created": 1,
        "model": body["model"],
        "data": [{"index": at, "object": "embedding", "embedding": vector} for at in range(len(given))],
        "usage": {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0},
    }


def _rerank(body: dict[str, Any]) -> dict[str, Any]:
    documents = list(enumerate(body["documents"]))[::-1][: body.get("top_n")]
    results = [
        {"index": at, "document": {"text": text, "multi_modal": None}, "relevance_score": at / 10}
        for at, text in documents
    ]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    return {"id": "rerank-1", "model": body["model"], "usage": usage, "results": results}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": "top_p", "code": code}}


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_part(send: Any, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _send_event(send: Any, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    await _send_part(send, f"data: {text}\n\n".encode())


async def _send_json(send: Any, status: int, content: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
