"""The viewer of volumes in a page: NiiVue, and the cut-outs that it shows, all inside the page.

The library lies in the page compressed, as data that no browser runs. `viewer.js` unpacks it when a
reader asks for the viewer; the page's policy lets it run for its digest, which stands in the head.
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from bids_app.reports.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_app.regions import Region

SCRIPT = "viewer.js"
_LIBRARY = ("niivue", "niivue.umd.js.gz")
_LIBRARY_ID = "viewer-library"


@cache
def library() -> str:
    """Give the library's code, by whose digest a page lets it run."""
    return gzip.decompress(_packed_library()).decode()


@cache
def library_data() -> Markup:
    """Make the element that carries the library."""
    return _data(_LIBRARY_ID, _packed_library())


def cutout_data(identifier: str, cutout: bytes) -> Markup:
    """Make the element that carries a cut-out of `bids_app.reports.images.cutout`."""
    return _data(identifier, cutout)


def opener(identifier: str, name: str, regions: Sequence[Region]) -> Markup:
    """Make the place of a viewer: without JavaScript a sentence, else a button.

    Parameters
    ----------
    identifier : str
        Of the element that carries the cut-out.
    name : str
        What it shows, for readers of several on a page.
    regions : sequence of Region
        Of its label map.
    """
    shown = [{"index": r.index, "name": r.name, "color": r.color} for r in regions]
    return element(
        "div",
        element("button", "Open the 3-D and slice viewer", type="button", hidden=True),
        element("noscript", element("p", "The 3-D and slice viewer needs JavaScript.")),
        class_="viewer",
        data_volume=identifier,
        data_name=name,
        data_regions=json.dumps(shown),
    )


def _packed_library() -> bytes:
    return files(__package__).joinpath(*_LIBRARY).read_bytes()


def _data(identifier: str, content: bytes) -> Markup:
    text = Markup(base64.b64encode(content).decode())
    return element("script", text, type="application/gzip", id=identifier)
