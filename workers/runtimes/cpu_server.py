"""vLLM's API server on the CPU, which imports vLLM once instead of three times.

    python -m workers.runtimes.cpu_server --model DIRECTORY …     # as vllm.entrypoints.openai.api_server

Importing vLLM takes 8 s of one core. On the CPU vLLM looks at the model's class in one subprocess and spawns
its engine as another, each with imports of its own; both habits protect CUDA, which is not here. So the
class is looked at in place, and the engine is forked, as vLLM itself does on GPUs. Forking is safe here
only because `vllm.py` fixes the number of OpenMP threads in the environment and asks for an engine of one
process: then nothing has started a thread pool before the fork.
"""

from __future__ import annotations

import os
import runpy
from typing import Any

from vllm.model_executor.models import registry
from vllm.platforms.cpu import CpuPlatform

check_and_update_config = CpuPlatform.check_and_update_config


def check_and_fork(config: Any) -> None:
    check_and_update_config(config)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


if __name__ == "__main__":
    CpuPlatform.check_and_update_config = staticmethod(check_and_fork)
    registry._run_in_subprocess = lambda look: look()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
