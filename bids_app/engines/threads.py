"""How torch computes in this process: threads side by side, and one way on each run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def side_by_side(workers: int, threads: int = 1) -> ThreadPoolExecutor:
    """Make a pool of workers of which each computes with so many CPU threads."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))


def fix_convolutions(device: torch.device, *, tf32: bool = False) -> None:
    """Have a GPU's convolutions made by the same algorithm on each run.

    This holds for the whole process from then on. Settings that are put back after an image would
    be put back under another one that a second GPU is at.

    Parameters
    ----------
    device : torch.device
        Of the networks; nothing is set for the CPU.
    tf32 : bool
        Let them round their input to TF32.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = tf32
