"""The end of a page: how its results came about, and what to cite for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_app.reports.citations import boilerplate, group_references, merged, references
from bids_app.reports.markup import element, with_links

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bids_app.reports.citations import Used
    from bids_app.reports.markup import Markup


def methods(all_used: Iterable[Used], sentences: Mapping[str, str]) -> Markup:
    """Make the section with a text for a methods section and the citations.

    Parameters
    ----------
    all_used : iterable of Used
        The models as they were used, one a result; none where the page shows no results by
        themselves.
    sentences : mapping of str to str
        Of `bids_app.reports.methods_text.group_sentences`, those that concern the page.
    """
    texts: dict[str, None] = {}
    cited: dict[str, None] = {}
    for used in merged(all_used):
        if used.engine:
            texts[boilerplate(used)] = None
        cited |= dict.fromkeys(references(used))
    if sentences:
        texts[" ".join(sentences.values())] = None
        cited |= dict.fromkeys(group_references(sentences))
    return element(
        "section",
        element("h2", "Methods and citations", id="methods"),
        element("p", "A text for a methods section:", class_="text") if texts else None,
        *(element("blockquote", element("p", with_links(text))) for text in texts),
        element("p", "Please cite:", class_="text") if cited else None,
        element("ul", *(element("li", with_links(text)) for text in cited), class_="text")
        if cited
        else None,
        element(
            "p",
            "The texts and references of all models and of the group level, also for a reference "
            "manager, are in ",
            element("code", "logs/CITATION.md"),
            " and ",
            element("code", "logs/CITATION.bib"),
            " of this dataset.",
            class_="text",
        ),
        aria_labelledby="methods",
    )
