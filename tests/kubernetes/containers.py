"""One container of a virtual pod: a process, its probes, its restarts and its last words."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.program import wrapped_argv

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("python", "-m", "workers.runtimes.kubernetes.pod")
"""What images stand for: the words at the start of a container's command. Trainers are always real."""
BACKOFF_SECONDS = (0.0, 1.0, 2.0, 4.0)
"""A kubelet waits 10 s, 20 s, 40 s …"""
PROBE_SECONDS = 0.3
LAST_BYTES = 2048


@dataclass(frozen=True)
class Surroundings:
    pod: Document
    address: str
    folder: Path
    volumes: Mapping[str, Path]
    images: Mapping[str, Sequence[str]]
    secret: Callable[[str, str], Document]


class Container:
    def __init__(self, spec: Document, around: Surroundings) -> None:
        self.spec, self.around, self.name = spec, around, str(spec["name"])
        self.restarts = 0
        self.ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started = ""
        self._ended: Document | None = None
        self._ended_before: Document | None = None
        self._ended_at = 0.0
        self._up = False
        self._probed = 0.0
        self._silent_since: float | None = None
        self._signalled = False
        self._once = around.pod["spec"].get("restartPolicy") == "Never"
        self._times: list[tuple[int, str]] = []
        """How much it had printed by when."""

    @property
    def log(self) -> Path:
        return self.around.folder / f"{self.name}.log"

    @property
    def is_over(self) -> bool:
        """It ended, and is not started again."""
        return self._once and self._ended is not None

    @property
    def ended_well(self) -> bool:
        return self._ended is not None and self._ended["exitCode"] == 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def move_on(self, *, restart: bool = False) -> None:
        if self.spec["image"] not in self.around.images:
            return
        if self._process is not None:
            self._time_log()
            self._look()
        if self._process is None and (self._ended is None or self._is_due(restart)):
            self._start()

    def timed_log(self) -> Iterator[tuple[str, bytes]]:
        """Each line that it has printed whole, or last of all, and when."""
        self._time_log()
        said = self.log.read_bytes()[: self._times[-1][0]] if self.log.exists() else b""
        place, times = 0, iter(self._times)
        printed, moment = next(times)
        for line in said.splitlines(keepends=True):
            place += len(line)
            if not line.endswith(b"\n") and not self.is_over:
                return
            while place > printed:
                printed, moment = next(times)
            yield moment, line

    def _time_log(self) -> None:
        printed = self.log.stat().st_size if self.log.exists() else 0
        if not self._times or printed > self._times[-1][0]:
            self._times.append((printed, _now()))

    def stop(self, sign: signal.Signals) -> bool:
        """Whether it has ended."""
        if self._process is None:
            return True
        if self._process.poll() is None:
            if not self._signalled or sign is signal.SIGKILL:
                self._signalled = True
                self._signal(sign)
            return False
        self._process = None
        return True

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def status(self) -> Document:
        found: Document = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.ready or (self.ended_well and self._process is None),
            "restartCount": self.restarts,
            "state": self._state(),
        }
        before = self._ended if self._is_backing_off() else self._ended_before
        return {**found, "lastState": {"terminated": before}} if before else found

    def _state(self) -> Document:
        if self.spec["image"] not in self.around.images:
            said = f'Back-off pulling image "{self.spec["image"]}"'
            return {"waiting": {"reason": "ImagePullBackOff", "message": said}}
        if self._process is not None:
            return {"running": {"startedAt": self._started}}
        if self._is_backing_off():
            said = f"back-off {self._wait():.0f}s restarting failed container={self.name}"
            return {"waiting": {"reason": "CrashLoopBackOff", "message": said}}
        return {"terminated": self._ended} if self._ended else {"waiting": {"reason": "ContainerCreating"}}

    def _is_backing_off(self) -> bool:
        failed = not self._once and self._ended is not None and self._process is None and not self.ended_well
        return failed and self._wait() > 0

    def _wait(self) -> float:
        return BACKOFF_SECONDS[min(self.restarts, len(BACKOFF_SECONDS) - 1)]

    def _is_due(self, restart: bool) -> bool:
        wanted = not self._once and (restart or not self.ended_well)
        return wanted and time.monotonic() - self._ended_at >= self._wait()

    def _start(self) -> None:
        if self._ended is not None:
            self.restarts += 1
            self._ended_before, self._ended = self._ended, None
        env = self._environment()
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                wrapped_argv(tuple(self._command()), None),  # it ends with the tests, however these end
                cwd=self._here(self.spec.get("workingDir") or str(self.around.folder)),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started, self._up, self.ready, self._signalled = _now(), False, False, False
        self._silent_since = None

    def _look(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            self._note_end(code)
        elif time.monotonic() - self._probed > PROBE_SECONDS:
            self._probed = time.monotonic()
            self._probe()

    def _note_end(self, code: int) -> None:
        said = self.log.read_bytes()[-LAST_BYTES:].decode(errors="replace") if code else ""
        self._ended = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": self._started,
            "finishedAt": _now(),
            **({"message": said} if said else {}),
        }
        self._process, self.ready, self._ended_at = None, False, time.monotonic()

    def _probe(self) -> None:
        """Startup first, then readiness; liveness ends an engine that is silent for too long."""
        answers = self._answers(self.spec.get("readinessProbe") or {})
        self._up = self._up or answers
        self.ready = self._up and answers
        live = self.spec.get("livenessProbe")
        if answers or not self._up or live is None:
            self._silent_since = None
            return
        self._silent_since = self._silent_since or time.monotonic()
        if time.monotonic() - self._silent_since > live["periodSeconds"] * live["failureThreshold"]:
            self._signal(signal.SIGKILL)

    def _answers(self, probe: Document) -> bool:
        if asked := probe.get("httpGet"):
            url = f"http://{self.around.address}:{asked['port']}{asked['path']}"
            with suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
            return False
        if asked := probe.get("tcpSocket"):
            with suppress(OSError):
                socket.create_connection((self.around.address, asked["port"]), timeout=1).close()
                return True
            return False
        return True

    def _command(self) -> list[str]:
        command = [*self.spec["command"], *(self.spec.get("args") or [])]
        if tuple(command[: len(PROGRAM)]) == PROGRAM:
            command = [*self.around.images[self.spec["image"]], *command[len(PROGRAM) :]]
        found = [self._here(word) for word in command]
        return [sys.executable, *found[1:]] if found[0] == "python" else found

    def _environment(self) -> dict[str, str]:
        self._write_projections()
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        for source in self.spec.get("envFrom") or []:
            namespace = self.around.pod["metadata"]["namespace"]
            secret = self.around.secret(namespace, source["secretRef"]["name"])
            env |= {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
        for each in self.spec.get("env") or []:
            if "value" in each:
                env[each["name"]] = self._here(each["value"])
            else:
                env[each["name"]] = self._value_from(each["valueFrom"])
        return env

    def _value_from(self, source: Document) -> str:
        if key := source.get("secretKeyRef"):
            secret = self.around.secret(self.around.pod["metadata"]["namespace"], key["name"])
            return base64.b64decode(secret["data"][key["key"]]).decode()
        field = source["fieldRef"]["fieldPath"]
        known = {"status.podIP": self.around.address, "metadata.uid": self.around.pod["metadata"]["uid"]}
        return str(known[field])

    def _write_projections(self) -> None:
        annotations = self.around.pod["metadata"].get("annotations") or {}
        for volume in self.around.pod["spec"].get("volumes") or []:
            for item in (volume.get("downwardAPI") or {}).get("items") or []:
                name = item["fieldRef"]["fieldPath"].split("'")[1]
                file = self.around.volumes[volume["name"]] / item["path"]
                file.write_text(self._here(annotations[name]))
            if source := volume.get("secret"):
                secret = self.around.secret(self.around.pod["metadata"]["namespace"], source["secretName"])
                for item in source["items"]:
                    file = self.around.volumes[volume["name"]] / item["path"]
                    file.write_bytes(base64.b64decode(secret["data"][item["key"]]))

    def _here(self, text: str) -> str:
        """The same words, with folders of this machine for the paths of volumes; the longest path first."""
        mounts = {mount["mountPath"]: mount["name"] for mount in self.spec.get("volumeMounts") or []}
        for path in sorted(mounts, key=len, reverse=True):
            if path != "/dev/shm":
                text = text.replace(path, str(self.around.volumes[mounts[path]]))
        return text

    def _signal(self, sign: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            if sign is signal.SIGKILL:
                os.killpg(self._process.pid, sign)
            else:
                os.kill(self._process.pid, sign)  # the container's first process alone is asked


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
