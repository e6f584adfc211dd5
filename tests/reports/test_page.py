"""Text of a dataset is shown as text, whatever it holds."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_app.reports.page import doi_links, environment, isolate_bidi, measure_name, number


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
    template = environment().from_string('<p title="{{ text }}">{{ text }}</p>')
    read = Reader(template.render(text=text))
    assert read.tags == ["p"]
    assert read.attributes == [("title", text)]
    assert read.text == text


@given(st.text())
def test_no_text_makes_an_element_or_an_address(text):
    read = Reader(isolate_bidi(text) + doi_links(text))
    assert set(read.tags) <= {"bdi", "a"}
    assert all(value.startswith("https://doi.org/10.") for _, value in read.attributes)


def test_a_doi_becomes_a_link_without_the_full_stop_behind_it():
    link = '<a href="https://doi.org/10.1/a_b">https://doi.org/10.1/a_b</a>'
    assert doi_links("See (https://doi.org/10.1/a_b).") == f"See ({link})."


def test_other_addresses_stay_text():
    for text in ("javascript:alert(1)", "https://example.org/x", "https://doi.org.evil/10.1/x"):
        assert "<a" not in doi_links(text)


@pytest.mark.parametrize(
    ("key", "words"),
    [("etiv_mm3", "eTIV (mm³)"), ("ap_diameter_mm", "Ap diameter (mm)"), ("run", "Run")],
)
def test_names_of_columns_become_words(key, words):
    assert measure_name(key) == words


def test_numbers_have_no_more_digits_than_they_bear():
    assert [number(value) for value in (None, 9000.0, 12.34, 3)] == ["n/a", "9,000", "12.3", "3"]
