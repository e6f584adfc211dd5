"""What all pages share: one file that asks nothing of any network, its style, and common parts."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from bids_app import __version__
from bids_app.io.tables import NOT_AVAILABLE, read_json
from bids_app.measures.flags import FLAGS
from bids_app.reports.markup import Markup, element, foreign, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bids_app.reports.markup import Content

RESEARCH_ONLY = "For research only; not a medical device."
_UNITS = {"mm3": "mm³", "mm2": "mm²", "mm": "mm"}


def page(
    title: str,
    main: Iterable[Content],
    *,
    script: str | None = None,
    data: Iterable[Content] = (),
    may_run: Iterable[str] = (),
) -> bytes:
    """Put a page together.

    The policy in its head lets a browser load nothing and run only the script given here, so
    that a page stays harmless whatever text of a dataset it shows. Code that the script adds to the
    page runs too if it was named here.

    Parameters
    ----------
    title : str
        Title of the window.
    main : iterable of str or Markup
        What the page shows, headings included.
    script : str, optional
        Name of a JavaScript file of this package, run when the page is there.
    data : iterable of Markup
        Elements behind the page's end that show nothing: what the script works on.
    may_run : iterable of str
        Code that the script may add to the page.

    Returns
    -------
    bytes
        HTML, UTF-8.
    """
    style = resource("style.css")
    policy = f"default-src 'none'; img-src data:; style-src {_source(style)}"
    policy += "; base-uri 'none'; form-action 'none'"
    scripts = None
    if script:
        code = resource(script)
        policy += f"; script-src {' '.join(map(_source, (code, *may_run)))}"
        scripts = element("script", Markup(code))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the results", href="#main", class_="skip"),
        element("main", *main, id="main", tabindex="-1"),
        element("footer", f"brainstem BIDS App {__version__}. {RESEARCH_ONLY}"),
        *data,
        scripts,
    )
    text = "<!DOCTYPE html>\n" + element("html", head, "\n", body, lang="en") + "\n"
    # Text of a dataset may hold halves of surrogate pairs, which UTF-8 cannot.
    return text.encode("utf-8", "replace")


@cache
def resource(name: str) -> str:
    """Read a text file that stands beside this module."""
    return (files(__package__) / name).read_text(encoding="utf-8")


@cache
def _source(code: str) -> str:
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def title_block(
    heading: str,
    output_dir: Path,
    results: int,
    flagged: int,
    failed: int,
    home: str | None = None,
) -> Markup:
    """Head of a page: what it is about, of which dataset, and how much of it to look at.

    Parameters
    ----------
    heading : str
        What the page is about.
    output_dir : Path
        The derivative dataset, which has a name.
    results, flagged, failed : int
        Complete results, those with flags among them, and images that failed.
    home : str, optional
        Address of the page of all participants.
    """
    dataset = str(read_json(output_dir / "dataset_description.json").get("Name", ""))
    counts = f"{counted(results, 'result')}, {flagged or 'none'} flagged"
    if failed:
        counts += f", {failed:,} failed"
    link = [". ", element("a", "All participants", href=home)] if home else []
    return element(
        "header",
        element("p", "Brainstem segmentation", *link, class_="kicker"),
        element("h1", foreign(heading)),
        element("p", foreign(dataset), ". " if dataset else None, counts, ".", class_="lead"),
    )


def heads(*names: str, class_: str | None = None) -> list[Markup]:
    """Make heads of columns; class ``number`` puts them at the right."""
    return [element("th", name, scope="col", class_=class_) for name in names]


def table(
    caption: str, head: Iterable[Content], rows: Iterable[Content], *, class_: str | None = None
) -> Markup:
    """Make a table that scrolls sideways on a narrow screen.

    Parameters
    ----------
    caption : str
        What the table shows.
    head : iterable of Markup
        Heads of its columns; see `heads`.
    rows : iterable of Markup
        Its ``tr`` elements.
    class_ : str, optional
        Class of the table.
    """
    content = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_=class_,
    )
    return scrolling(caption, content)


def scrolling(name: str, content: Markup) -> Markup:
    """Let something wide scroll sideways by itself, also by keyboard."""
    return element("div", content, class_="scroll", role="group", aria_label=name, tabindex="0")


def badges(flags: Sequence[str], meanings: Mapping[str, str] = FLAGS) -> Markup:
    """Show flags as badges; what each means is told where one points at it."""
    if not flags:
        return element("span", "none", class_="quiet")
    return join(
        element("span", foreign(flag), class_="badge", title=meanings.get(flag)) for flag in flags
    )


def notice(heading: str, items: Iterable[str], *, level: str = "h3") -> Markup | None:
    """Make a box of things to look at, each with its own words; nothing where there is none."""
    entries = [element("li", foreign(item)) for item in items]
    if not entries:
        return None
    return element("div", element(level, heading), element("ul", *entries), class_="notice")


def swatch(color: str) -> Markup:
    """Show a region's colour as in the pictures."""
    square = element("rect", width="12", height="12", rx="2", fill=color)
    return element("svg", square, viewBox="0 0 12 12", class_="swatch", aria_hidden="true")


def millilitres(mm3: str) -> str:
    """Write a volume of a table in millilitres with two decimals."""
    return mm3 if mm3 == NOT_AVAILABLE else f"{float(mm3) / 1000:.2f}"


def volume_head(name: str) -> str:
    """Head of a column with a region's volumes in millilitres."""
    return f"{name[:1].upper()}{name[1:]} (ml)"


def measure_name(key: str) -> str:
    """Write a table's column or a sidecar's key as words: ``etiv_mm3`` as ``eTIV (mm³)``."""
    words = [w for w in re.split(r"_|(?<=[a-z])(?=[A-Z])", key) if w]
    unit = _UNITS.get(words[-1]) if words else None
    text = " ".join(words[:-1] if unit else words)
    text = text[:1].upper() + text[1:]
    text = re.sub(r"^Etiv\b", "eTIV", text)
    return f"{text} ({unit})" if unit else text


def anchor(source: str, model: str, version: str) -> str:
    """Name the place of an image's result in its participant's page."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{source}-{model}-{version}").strip("-")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
