"""The end of a participant's page: how its results came about, and what to cite for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.citations import Used, boilerplate, references
from bids_app.reports.markup import element, with_links

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bids_app.derivatives import Result
    from bids_app.reports.markup import Markup


def methods(results: Iterable[Result]) -> Markup:
    """Make the section with a text for a methods section and the citations."""
    texts: dict[str, None] = {}
    cited: dict[str, None] = {}
    for result in results:
        used = Used.from_sidecar(result.label, result.sidecar)
        if used.engine:
            texts[boilerplate(used)] = None
        cited |= dict.fromkeys(references(used))
    return element(
        "section",
        element("h2", "Methods and citations", id="methods"),
        element("p", "A text for a methods section:", class_="text") if texts else None,
        *(element("blockquote", element("p", with_links(text))) for text in texts),
        element("p", "Please cite:", class_="text"),
        element("ul", *(element("li", with_links(text)) for text in cited), class_="text"),
        element(
            "p",
            "The same, also for a reference manager, is in ",
            element("code", "logs/CITATION.md"),
            " and ",
            element("code", "logs/CITATION.bib"),
            " of this dataset.",
            class_="text",
        ),
        aria_labelledby="methods",
    )
