"""Options of an MD-GRU: the manifest's table ``[inference]``.

::

    window = [100, 100, 100]     # voxels along x, y, z
    padding = [20, 20, 20]       # overlap of windows
    labels = "argmax"            # or "threshold": the published rule after resampling
    convolution = "tiled"        # default on a CPU in float32; otherwise "direct"
    precision = "float32"        # or "tf32", "bfloat16": faster on some GPUs, less exact
    batch = 1                    # windows at once; more may be faster on a GPU
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = ("argmax", "threshold")
CONVOLUTIONS = ("direct", "tiled")
PRECISIONS = ("float32", "tf32", "bfloat16")
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Inference:
    """Options of a network; see the module's docstring."""

    window: Triple = (100, 100, 100)
    padding: Triple = (20, 20, 20)
    labels: str = "argmax"
    convolution: str = ""  # chosen for the device
    precision: str = "float32"
    batch: int = 1

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Inference:
        """Read a manifest's table.

        Raises
        ------
        ValueError
            An entry is unknown, or has an invalid value.
        """
        names = [field.name for field in fields(cls)]
        for name in table:
            if name not in names:
                raise ValueError(f"[inference] has no entry {name}; it has {', '.join(names)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in table.items()
        }
        made = cls(**values)
        choices = {"labels": RULES, "convolution": CONVOLUTIONS, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if name in table and table[name] not in allowed:
                raise ValueError(
                    f"[inference] {name} is {table[name]!r}, not {' or '.join(map(repr, allowed))}"
                )
        if made.convolution == "tiled" and made.precision != "float32":
            raise ValueError(
                f"[inference] convolution 'tiled' needs precision 'float32', not {made.precision!r}"
            )
        if type(made.batch) is not int or made.batch < 1:
            raise ValueError(f"[inference] batch is {made.batch!r}, not a positive integer")
        for name in ("window", "padding"):
            sizes = getattr(made, name)
            if not (
                isinstance(sizes, tuple)
                and len(sizes) == 3
                and all(type(size) is int for size in sizes)
            ):
                raise ValueError(
                    f"[inference] {name} is {table[name]!r}, not three integers [x, y, z]"
                )
        # The published weights are not defined for a padding of 1.
        if not all(p >= 0 and p != 1 and w > 2 * p for w, p in zip(made.window, made.padding)):  # noqa: B905
            raise ValueError(
                f"[inference] padding {list(made.padding)} does not fit window "
                f"{list(made.window)}: each must be 0, or at least 2 and less than half the window"
            )
        return made
