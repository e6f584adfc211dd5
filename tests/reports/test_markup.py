"""Text of a dataset is shown as text, whatever it holds."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from bids_app.reports.markup import Markup, element, foreign, join, with_links


class Reader(HTMLParser):
    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@given(st.text())
def test_text_and_attributes_come_back_as_they_were(text):
    read = Reader(element("p", text, title=text))
    assert read.tags == ["p"]
    assert read.attributes == [("title", text)]
    assert read.text == text


@given(st.text())
def test_no_text_makes_an_element_or_a_foreign_address(text):
    read = Reader(join([foreign(text), with_links(text)]))
    assert set(read.tags) <= {"bdi", "a"}
    assert all(value.startswith("https://doi.org/10.") for _, value in read.attributes)


def test_markup_stands_as_it_is_and_text_beside_it_does_not():
    assert join([Markup("<b>"), "<b>", None]) == "<b>&lt;b&gt;"


def test_attributes_may_be_left_out_or_stand_without_a_value():
    assert element("img", alt="", hidden=True, title=None, class_="x", aria_label="y") == (
        '<img alt="" hidden class="x" aria-label="y">'
    )


def test_a_doi_becomes_a_link_without_the_full_stop_behind_it():
    link = '<a href="https://doi.org/10.1/a_b">https://doi.org/10.1/a_b</a>'
    assert with_links("See (https://doi.org/10.1/a_b).") == f"See ({link})."


def test_other_addresses_stay_text():
    for text in ("javascript:alert(1)", "https://example.org/x", "https://doi.org.evil/10.1/x"):
        assert "<a" not in with_links(text)
