"""Two processes that train together over gloo on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent.parent
_BEFORE = """
import os, sys
import torch
import pretrainps.detectors
from torch import distributed as dist

folder = sys.argv[1]
torch.set_num_threads(1)
child = os.fork()  # imports take longer than anything else here, so both ranks share them
rank = int(child == 0)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
"""
_AFTER = """
torch.save(result, f"{folder}/{rank}.pt")
dist.destroy_process_group()
sys.exit(os.waitpid(child, 0)[1] != 0 if child else 0)
"""


def run_on_two_ranks(program: str, folder: Path) -> list[Any]:
    """Run a program on both ranks and return what each left in `result`.

    Args:
        program: Python; `rank`, `folder`, `torch` and `dist` are there.
        folder: Where both may read and write.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # whatever this host's name resolves to
    process = subprocess.Popen(
        [sys.executable, "-c", _BEFORE + program + _AFTER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # one rank waits for ever if the other fails
    assert process.returncode == 0, said
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
