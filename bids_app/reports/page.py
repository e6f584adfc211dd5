"""Render a page: one HTML file that loads nothing, made by jinja2 with autoescape.

The templates are in ``templates/``. Text of a dataset is escaped and, by the filter
``isolate_bidi``, cannot change the direction of the text around it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bids_app.bids.outputs import report_name
from bids_app.io.files import read_packaged
from bids_app.io.tables import NOT_AVAILABLE
from bids_app.regions import WHOLE_NAME, region
from bids_app.version import __version__

WHOLE_COLOR = "#8A939B"
_UNITS = {"mm3": "mm³", "mm2": "mm²", "mm": "mm"}
_DOI = re.compile(r"(?:https://doi\.org/|\bdoi )(10\.\d+/[^\s<>\"]*[^\s<>\".,;:)\]])")


def render(template: str, *, script: str = "", **content: Any) -> bytes:
    """Render a template that extends ``page.html.j2``.

    The Content-Security-Policy of the page lets the browser load nothing, and run only the script
    that is named here (and NiiVue, if that script is the viewer's).

    Parameters
    ----------
    template : str
        Name in ``templates/``.
    script : str
        Name of a JavaScript file of this package, if the page needs one.
    **content
        Variables of the template.

    Returns
    -------
    bytes
        HTML, UTF-8. The same arguments give the same bytes.
    """
    style = resource("style.css")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}"
    policy += "; base-uri 'none'; form-action 'none'"
    if script:
        code = [resource(script), *([niivue()] if script == "viewer.js" else [])]
        policy += f"; script-src {' '.join(map(_hash, code))}"
    text = (
        environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(style),  # noqa: S704 - a file of this package
            script=Markup(resource(script)) if script else "",  # noqa: S704
            version=__version__,
            **content,
        )
    )
    # Text of a dataset may have lone surrogates, which UTF-8 cannot encode.
    return text.encode("utf-8", "replace")


@cache
def environment() -> Environment:
    """Give the jinja2 environment of all pages."""
    made = Environment(
        loader=PackageLoader("bids_app.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        function.__name__: function
        for function in (
            isolate_bidi, doi_links, millilitres, volume_heading, measure_name, counted, number,
            percent_heading,
            region_color, upper_first,
        )
    }  # fmt: skip
    return made


@cache
def resource(name: str) -> str:
    """Read a text file of this package."""
    return read_packaged(__package__, name).decode()


@cache
def niivue_gz() -> bytes:
    """Read the NiiVue library, compressed as it is inside a page."""
    return read_packaged(__package__, "niivue", "niivue.umd.js.gz")


@cache
def niivue() -> str:
    """Give the code of NiiVue, whose hash is in the policy of a page with a viewer."""
    return gzip.decompress(niivue_gz()).decode()


@cache
def _hash(code: str) -> str:
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"'sha256-{digest}'"


# --- filters ------------------------------------------------------------------------------


def isolate_bidi(text: object) -> Markup:
    """Show text of a dataset, with its writing direction isolated from its surroundings."""
    return Markup("<bdi>{}</bdi>").format(str(text))


def doi_links(text: str) -> Markup:
    """Show text with its DOIs (``https://doi.org/10...`` or ``doi 10...``) as links."""
    parts, end = [], 0
    for match in _DOI.finditer(text):
        link = Markup('<a href="https://doi.org/{}">{}</a>').format(match[1], match[0])
        parts += [escape(text[end : match.start()]), link]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def millilitres(mm3: float | None) -> str:
    """Write a volume in millilitres with two decimals."""
    return NOT_AVAILABLE if mm3 is None else f"{mm3 / 1000:.2f}"


def number(value: float | None) -> str:
    """Write a number with thousands separators and at most one decimal."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 image``, ``2,000 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def upper_first(text: str) -> str:
    """Write the first letter as a capital and leave the others."""
    return text[:1].upper() + text[1:]


def volume_heading(name: str) -> str:
    """Heading of a column with a region's volumes in millilitres."""
    return f"{upper_first(name)} (ml)"


def percent_heading(name: str) -> str:
    """Heading of a column with a region's changes in per cent."""
    return f"{upper_first(name)} (%)"


def measure_name(key: str) -> str:
    """Write the name of a column in words: ``etiv_mm3`` as ``eTIV (mm³)``."""
    words = [word for word in key.split("_") if word]
    unit = _UNITS.get(words[-1]) if words else None
    text = upper_first(" ".join(words[:-1] if unit else words))
    text = re.sub(r"^Etiv\b", "eTIV", text)
    return f"{text} ({unit})" if unit else text


def region_color(name: str, index: int | None) -> str:
    """Give the colour of a region in pictures; grey for the whole brainstem."""
    return WHOLE_COLOR if index is None or name == WHOLE_NAME else region(index, name).color


def anchor(source: str, model: str, version: str) -> str:
    """Make the id of an image's result in its participant's page."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{source}-{model}-{version}").strip("-")


def result_address(participant: str, source: str, model: str, version: str) -> str:
    """Address of a result in its participant's page, which is beside the page of the dataset."""
    return f"{quote(report_name(participant))}#{anchor(source, model, version)}"
