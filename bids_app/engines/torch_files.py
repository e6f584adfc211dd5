"""Files of torch, read without running code that they may contain."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.serialization import safe_globals

from bids_app.errors import ModelError
from bids_app.io.files import write_new

if TYPE_CHECKING:
    from pathlib import Path

# nnU-Net checkpoints also contain the training losses as numpy scalars, which numpy 1 wrote under
# another module name.
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
SAFE: list[Any] = [
    np.dtype,
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "?")),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
]


def load(path: Path) -> Any:
    """Load a torch file that contains only tensors, numbers and containers.

    Zip files (the format since torch 1.6) are memory-mapped: the optimizer's state, twice the size
    of the weights, is never read.

    Raises
    ------
    ModelError
        The file is missing or damaged, or would run code.
    """
    try:
        with safe_globals(SAFE):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # a damaged file raises almost anything
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{path}: cannot be loaded as network weights ({reason}). Install the model again."
        ) from error


def save(content: object, path: Path) -> None:
    """Save with torch, but raise a plain `OSError` if the disk is full."""
    stream = io.BytesIO()
    torch.save(content, stream)
    write_new(path, stream.getbuffer())
