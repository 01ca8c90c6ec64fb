"""What the container of a trainer's pod runs on Kubernetes.

    python -m workers.runtimes.trainer_pod SPEC.json

Of one attempt one pod trains: the first that says so in the object store. Clusters before 1.26 make another
pod for one that is being deleted while that still writes its checkpoint; such a one ends at once. Then this
process stays the container's first one: it passes signals on, and ends as the trainer does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from controlplane.storage import ObjectStore, StorageUnavailable
from workers.runtimes.node_settings import node_settings
from workers.training.errors import EXIT_INTERRUPTED, EXIT_OUTAGE

POD_VARIABLE = "HEARTH_POD_UID"
ATTEMPT_VARIABLE = "HEARTH_ATTEMPT"
TERMINATION_MESSAGE = Path("/dev/termination-log")
SIGNALLED = 128
"""Exit codes above it stand for a signal."""


def main() -> int:
    (file,) = sys.argv[1:]
    # As the container's first process it would take no notice of the signal.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_INTERRUPTED))
    spec, here = Path(file), Path.cwd()
    prefix = str(json.loads(spec.read_bytes())["output_prefix"])
    try:
        owner = claim(ObjectStore.from_settings(node_settings()), prefix, os.environ[POD_VARIABLE])
    except StorageUnavailable as error:
        sys.stderr.write(f"the object store cannot be reached: {error}\n")
        return EXIT_OUTAGE
    if owner != os.environ[POD_VARIABLE]:
        say_why(f"this attempt was begun by the pod {owner}, and goes on as another one")
        return EXIT_INTERRUPTED
    shutil.copyfile(spec, here / spec.name)
    return train(here / spec.name)


def claim(store: ObjectStore, prefix: str, pod: str) -> str:
    """The uid of the pod that this attempt belongs to: the first that came."""
    key = f"{prefix}attempts/{int(os.environ[ATTEMPT_VARIABLE])}"
    # Also when it was there: a write whose answer was lost was tried again, and may be this pod's own.
    store.create_bytes(key, pod.encode())
    return store.get_bytes(key).decode()


def say_why(message: str) -> None:
    """To whoever looks at the pod. In the log it would stand in the place of what the first one said."""
    if TERMINATION_MESSAGE.exists():
        TERMINATION_MESSAGE.write_text(message)


def train(spec: Path) -> int:
    """Have it trained; the exit status, as a shell would tell it."""
    trainer = subprocess.Popen([sys.executable, "-m", "workers.training", str(spec)])
    signal.signal(signal.SIGTERM, lambda number, _: trainer.send_signal(number))
    status = trainer.wait()
    return status if status >= 0 else SIGNALLED - status


if __name__ == "__main__":
    sys.exit(main())
