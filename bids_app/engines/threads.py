"""How torch computes in this process: pools of threads, and reproducible convolutions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def side_by_side(workers: int, threads: int = 1) -> ThreadPoolExecutor:
    """Make a pool of workers that each compute with this number of CPU threads."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))


def fix_convolutions(device: torch.device, *, tf32: bool = False) -> None:
    """Make a GPU compute convolutions with the same algorithm in every run.

    This applies to the whole process from then on. Restoring the settings after an image would
    change them for an image that a second GPU is processing.

    Parameters
    ----------
    device : torch.device
        Device of the networks; nothing is set for the CPU.
    tf32 : bool
        Allow convolutions to round their input to TF32.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = tf32
