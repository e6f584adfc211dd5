"""Midbrain, pons and medulla on T1-weighted MRI, as a BIDS App and a Python API.

`segment` takes one image, `Segmenter` many, and `Result` holds what comes out; examples stand in
`bids_app.workflow.api`. Nothing heavy is imported before one of them is used.
"""

import os
from typing import TYPE_CHECKING, Any

from bids_app.version import __version__

if TYPE_CHECKING:
    from bids_app.workflow.api import Result, Segmenter, segment

__all__ = ["Result", "Segmenter", "__version__", "segment"]

# torch then asks for pages of 2 MB for large tensors (Linux), and reads this once, before its first
# tensor. A fresh tensor of 50 MB costs 5 ms instead of 24, of which a network makes dozens.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> Any:
    # On first use, so that importing the package stays quick: numpy and nibabel come with these.
    if name in ("Result", "Segmenter", "segment"):
        from bids_app.workflow import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
