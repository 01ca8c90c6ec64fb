"""How much memory the trainer has needed so far."""

from __future__ import annotations

import resource

import torch

KIBIBYTE = 1024


def peak_memory() -> dict[str, int]:
    """Bytes, under the names of the progress: of this process, and on its accelerator where it has one."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"peak_memory_bytes": resident, "gpu_memory_bytes": on_gpu}
