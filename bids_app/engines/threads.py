"""Threads that compute side by side, each with CPU threads of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def side_by_side(workers: int, threads: int = 1) -> ThreadPoolExecutor:
    """Make a pool of workers of which each computes with so many CPU threads."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))
