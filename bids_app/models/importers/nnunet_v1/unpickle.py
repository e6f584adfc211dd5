"""Pickles of nnU-Net v1, read without running code that they may contain.

A pickle names the functions that rebuild its objects. Plans of nnU-Net v1 need OrderedDict, and
numpy's arrays, scalars and dtypes. The latter are replaced by classes of this module, which return
lists and plain numbers. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_app.errors import ModelError
from bids_app.io.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST = 64 * 2**20  # bytes; published plans have less than one


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain containers, numbers, text and numpy arrays of numbers.

    Parameters
    ----------
    path : Path

    Returns
    -------
    object
        With arrays as (nested) lists and numpy scalars as Python numbers.

    Raises
    ------
    ModelError
        The file is missing or damaged, or contains anything else.
    """
    try:
        with open_regular(path) as stream:
            # A larger file is cut off here, and then refused as damaged.
            return _Unpickler(io.BytesIO(stream.read(LARGEST))).load()
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path.name}: refused, it is damaged or unsafe ({reason}).") from error


class _Type:
    """Replaces numpy.dtype for numbers, text and objects that are already unpickled."""

    def __init__(self, code: str, _align: object = False, _copy: object = False) -> None:
        if not re.fullmatch(r"[iu][1248]|f[248]|b1|[US]\d{1,4}|O8", code):
            raise pickle.UnpicklingError(f"an array of {code}")
        self._code = code
        self._order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = ">" if state[1] == ">" else "<"

    def values(self, raw: bytes | list[Any]) -> NDArray[Any]:
        if self._code != "O8":
            return np.frombuffer(raw, dtype=self._order + self._code)  # type: ignore[arg-type]
        objects = np.empty(len(raw), dtype=object)
        for i, value in enumerate(raw):
            objects[i] = value
        return objects


class _Array(list[Any]):
    """Replaces numpy.ndarray."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        self[:] = kind.values(raw).reshape(shape, order="F" if fortran else "C").tolist()


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(kind: _Type, raw: bytes) -> Any:
    return kind.values(raw)[0].item()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before and after numpy 2
    _ALLOWED[_module, "_reconstruct"] = _reconstruct
    _ALLOWED[_module, "scalar"] = _scalar


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, _pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to other objects")
