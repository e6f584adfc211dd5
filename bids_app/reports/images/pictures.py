"""Pictures of a label map on its image, for quick visual inspection.

A mosaic has one row each of sagittal, coronal and axial slices through the brainstem, on one
scale in millimetres. Slices are voxel planes of the image; interpolation is only within a plane.
Outlines are drawn where a smoothed indicator of the label crosses a level, so that they neither
hide what they enclose nor show the steps of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bids_app.reports.images.framing import SLICES, choose_frame, grey_window
from bids_app.reports.images.png import OPACITIES, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_app.regions import Region
    from bids_app.reports.images.framing import Frame

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

TILE = 220  # pixels along a tile's side
GAP = 2  # pixels between tiles
FOOTER = 40  # pixels
LINE = 2.0  # width of an outline in pixels; a page shows the picture at three quarters
LEVEL = 0.45  # of the smoothed indicator; a little under one half, so that a lone voxel shows
LEAST_SLOPE = 0.04  # a pixel; at the border of voxels of 6.5 mm it is 0.05
SCALE_BAR_MM = 20

BACKGROUND, QUIET, INK = 14, 168, 235  # greys from 0 to 255

# Each plane: its name, the order of its slices, the axis across it, then the axis (number,
# direction) that runs along the picture's columns and the one along its rows, and the letters at
# the left, right, top and bottom. A sagittal slice faces left; coronal and axial slices have the
# participant's left at the left.
_PLANES = (
    ("Sagittal", "left to right", 0, (1, -1), (2, -1), "APSI"),
    ("Coronal", "back to front", 1, (0, 1), (2, -1), "LRSI"),
    ("Axial", "bottom to top", 2, (0, 1), (1, -1), "LRAP"),
)


def mosaic(
    data: Floats,
    labels: Bytes,
    voxel_size: Sequence[float],
    regions: Sequence[Region],
) -> bytes:
    """Draw a label map's outlines on its image, as slices in three planes.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        Image in RAS voxel order: x to the right, y to the front, z up.
    labels : ndarray of uint8, shape (X, Y, Z)
        Label map on the same grid; 0 is background. An empty map gives slices through the
        expected place of the brainstem, and the words that no region was found.
    voxel_size : sequence of three float
        Edges of a voxel along x, y and z in millimetres.
    regions : sequence
        Index, name and colour of each label, at most `bids_app.reports.images.png.MOST_COLOURS`
        different colours; values without a region are not drawn.

    Returns
    -------
    bytes
        PNG. The same arguments give the same bytes.
    """
    size = np.asarray(voxel_size, dtype=np.float64)
    view = choose_frame(data, labels, size)
    low, high = grey_window(data, view, size)
    colours = list(dict.fromkeys(region.color for region in regions))

    width = SLICES * TILE + (SLICES - 1) * GAP
    height = 3 * (TILE + GAP) + FOOTER
    greys = np.full((height, width), BACKGROUND, dtype=np.uint8)
    tints = np.zeros((height, width), dtype=np.uint8)
    for row, (_, _, across, *in_plane, _) in enumerate(_PLANES):
        columns, rows = (_Ruler.of(axis, view, data.shape, size) for axis in in_plane)
        for column, index in enumerate(view.slices[across]):
            top, left = row * (TILE + GAP), column * (TILE + GAP)
            tile = (slice(top, top + TILE), slice(left, left + TILE))
            values = rows.cubic @ data.take(index, across).T @ columns.cubic.T
            greys[tile] = np.clip((values - low) * (255.0 / (high - low)), 0.0, 255.0)
            plane = labels.take(index, across).T
            for region in regions:
                inside = plane == region.index
                if inside.any():
                    smooth = rows.spline @ inside.astype(np.float32) @ columns.spline.T
                    opacity = np.rint(OPACITIES * _outline(smooth)).astype(np.uint8)
                    first = colours.index(region.color) * OPACITIES
                    tints[tile] = np.where(opacity > 0, first + opacity, tints[tile])
    swatches = _annotate(greys, view, size, regions, empty=not labels.any())
    for region, swatch in zip(regions, swatches, strict=True):
        tints[swatch] = (colours.index(region.color) + 1) * OPACITIES
    return encode(greys, tints, colours)


@dataclass(frozen=True)
class _Ruler:
    """Interpolation from the voxels along an axis to the pixels along a tile's side.

    Attributes
    ----------
    cubic : ndarray of float32, shape (TILE, voxels)
        Weights of Keys' cubic convolution (1981), which goes through the voxels' values.
    spline : ndarray of float32, shape (TILE, voxels)
        Weights of the quadratic B-spline, which smooths, but leaves 0.56 of a lone voxel.
    """

    cubic: Floats
    spline: Floats

    @classmethod
    def of(
        cls, axis: tuple[int, int], frame: Frame, shape: tuple[int, ...], size: NDArray[np.float64]
    ) -> _Ruler:
        """Make the weights for an axis (number, direction) of the image; 0 outside the image."""
        number, direction = axis
        millimetres = ((np.arange(TILE) + 0.5) / TILE - 0.5) * frame.side_mm * direction
        position = frame.centre[number] + millimetres / size[number]
        distance = np.abs(position[:, np.newaxis] - np.arange(shape[number]))
        near = ((1.5 * distance - 2.5) * distance) * distance + 1.0
        far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
        cubic = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
        middle, outer = 0.75 - distance**2, 0.5 * (1.5 - distance) ** 2
        spline = np.where(distance < 0.5, middle, np.where(distance < 1.5, outer, 0.0))
        return cls(cubic.astype(np.float32), spline.astype(np.float32))


def _outline(smooth: Floats) -> Floats:
    """Opacity of a line of width `LINE` along the inner side of `LEVEL`.

    The distance to the level is taken as the difference from it over the slope, which is exact
    to first order, and gives the line soft edges. On the inner side, so that neighbouring
    regions do not paint over each other. The slope has a floor, so that the flat top of a lone
    voxel is painted and not mistaken for the inside of a large region.
    """
    slope = np.hypot(*np.gradient(smooth))
    distance = (smooth - LEVEL) / np.maximum(slope, LEAST_SLOPE)
    opacity: Floats = np.clip(LINE / 2 + 0.5 - np.abs(distance - LINE / 2), 0.0, 1.0)
    return opacity


def _annotate(
    greys: Bytes,
    frame: Frame,
    size: NDArray[np.float64],
    regions: Sequence[Region],
    *,
    empty: bool,
) -> list[tuple[slice, slice]]:
    """Write letters, distances, legend and scale bar; return where the legend has its colours."""
    picture = Image.fromarray(greys)
    draw = ImageDraw.Draw(picture)
    _label_rows(draw, frame, size)
    _mark_planes(draw, frame, size)

    font = ImageFont.load_default(18)
    line = picture.height - FOOTER // 2
    left = 8
    swatches = []
    for region in regions:
        name = region.name if region.name.isascii() else f"label {region.index}"
        swatches.append((slice(line - 6, line + 7), slice(left, left + 13)))
        draw.text((left + 19, line), name, INK, font, "lm")
        left += 19 + round(draw.textlength(name, font)) + 24
    if empty:
        draw.text((left, line), "No region found in this image", INK, font, "lm")
    bar = SCALE_BAR_MM * TILE / frame.side_mm
    right = picture.width - 10.0
    draw.rectangle((right - bar, line - 2, right, line + 1), fill=INK)
    draw.text((right - bar - 10, line), f"{SCALE_BAR_MM} mm", INK, font, "rm")
    right -= bar + 38 + draw.textlength(f"{SCALE_BAR_MM} mm", font)
    draw.text((right, line), "L: the participant's left, shown at the left", QUIET, font, "rm")
    greys[:] = np.asarray(picture)
    return swatches


def _label_rows(draw: ImageDraw.ImageDraw, frame: Frame, size: NDArray[np.float64]) -> None:
    """Label each row with its plane and slice distance, and its first tile with directions."""
    font = ImageFont.load_default(16)
    end = SLICES * TILE + (SLICES - 1) * GAP
    for row, (name, order, across, _, _, letters) in enumerate(_PLANES):
        top = row * (TILE + GAP)
        middle = TILE / 2
        planes = frame.slices[across]
        step = (planes[-1] - planes[0]) * size[across] / (SLICES - 1)
        words = [
            (6, 5, "la", name),
            (end - 6, 5, "ra", f"{order}, {step:.1f} mm apart"),
            (5, middle, "lm", letters[0]),
            (TILE - 5, middle, "rm", letters[1]),
            (middle, 5, "ma", letters[2]),
            (middle, TILE - 5, "ms", letters[3]),
        ]
        for x, y, anchor, text in words:
            draw.text((x, top + y), text, INK, font, anchor, stroke_width=2, stroke_fill=0)


def _mark_planes(draw: ImageDraw.ImageDraw, frame: Frame, size: NDArray[np.float64]) -> None:
    """Mark on the middle sagittal slice where the coronal and axial slices lie."""
    left = (SLICES // 2) * (TILE + GAP)
    scale = TILE / frame.side_mm
    for ink, reach in ((0, 1), (INK, 0)):  # a dark rim first, to be seen on any grey
        for index in frame.slices[1]:
            x = left + TILE / 2 - (index - frame.centre[1]) * size[1] * scale
            draw.rectangle((x - reach, TILE - 8 - reach, x + reach, TILE - 1), fill=ink)
        for index in frame.slices[2]:
            y = TILE / 2 - (index - frame.centre[2]) * size[2] * scale
            end = left + TILE - 1
            draw.rectangle((end - 7 - reach, y - reach, end, y + reach), fill=ink)
