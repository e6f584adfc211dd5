"""Hypothesis strategies: entities of T1w images, the paths they make, and faulty files."""

from __future__ import annotations

import gzip
import json
import string
import struct

from hypothesis import strategies as st

LABELS = st.text(string.ascii_letters + string.digits + "+", min_size=1, max_size=6)
# Leading zeros are part of how a run is written.
INDICES = st.text(string.digits, min_size=1, max_size=4)


def t1w_entities() -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Entities that a T1w image may have, in the order of BIDS."""
    return st.fixed_dictionaries(
        {"sub": LABELS},
        optional={
            "ses": LABELS,
            "task": LABELS,
            "acq": LABELS,
            "ce": LABELS,
            "rec": LABELS,
            "run": INDICES,
            "echo": INDICES,
            "part": st.sampled_from(["mag", "phase", "real", "imag"]),
            "chunk": INDICES,
        },
    ).map(_in_order)


def _in_order(entities: dict[str, str]) -> tuple[tuple[str, str], ...]:
    order = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk")
    return tuple((key, entities[key]) for key in order if key in entities)


def t1w_path(entities: tuple[tuple[str, str], ...], extension: str = ".nii.gz") -> str:
    """Path in the dataset of the T1w image with these entities."""
    folders = [f"{key}-{value}" for key, value in entities if key in ("sub", "ses")]
    stem = "_".join(f"{key}-{value}" for key, value in entities)
    return "/".join([*folders, "anat", f"{stem}_T1w{extension}"])


# --- faulty files -------------------------------------------------------------------------

# Half surrogates, control and direction characters, what HTML, spreadsheets and tables take amiss.
ODD_TEXT = st.text(
    st.one_of(
        st.characters(codec=None),
        st.sampled_from("\x00\t\n\r\x1b\x85\u2028\u202e\ud800\udcff<>&\"'=+-@,;%$`\\/"),
    ),
    max_size=12,
)
# How HTML must not appear in a page.
SCRIPT = "<script>alert(1)</script>"
ODD_NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -1, 10**400, float("nan"), float("inf"), 1e308]),
)
ODD_VALUES = st.recursive(
    st.none() | st.booleans() | ODD_NUMBERS | ODD_TEXT | st.just(SCRIPT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=5,
)
ODD_BYTES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"", b"[]", b"{", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\x00",
            b"\xef\xbb\xbf{}", b'"\\ud800"', b"9" * 5000, b"\x00" * 100, b"<html></html>",
        ]
    ),
)  # fmt: skip


def odd_json(keys: list[str], content: dict[str, object] | None = None) -> st.SearchStrategy[bytes]:
    """Bytes of a JSON file: an object with odd values of some keys, or no object at all."""

    def dump(odd: dict[str, object]) -> bytes:
        # half surrogates are written as escapes, as other programs write them
        return json.dumps({**(content or {}), **odd}).encode()

    objects = st.dictionaries(st.sampled_from(keys), ODD_VALUES, min_size=1, max_size=3).map(dump)
    return objects | ODD_BYTES


def odd_table(columns: list[str], first: list[str]) -> st.SearchStrategy[bytes]:
    """Bytes of a table: rows for `first` with odd cells, in several codes and separators."""
    cells = st.lists(ODD_TEXT, max_size=len(columns) + 1)
    rows = st.lists(st.tuples(st.sampled_from(first) | ODD_TEXT, cells), max_size=4)

    def dump(rows: list[tuple[str, list[str]]], mark: str, code: str) -> bytes:
        lines = [mark.join(columns), *(mark.join([name, *texts]) for name, texts in rows)]
        return "\n".join(lines).encode(code, "replace")

    tables = st.builds(
        dump, rows, st.sampled_from("\t\t\t,;"), st.sampled_from(["utf-8", "utf-16", "latin-1"])
    )
    return tables | ODD_BYTES


# Fields of a NIfTI-1 header: place and type.
_HEADER = {
    40: "<8h", 70: "<h", 72: "<h", 76: "<8f", 108: "<f", 112: "<f", 116: "<f", 123: "<B",
    252: "<h", 254: "<h", 256: "<3f", 268: "<3f", 280: "<4f", 296: "<4f", 312: "<4f", 0: "<i",
    344: "<4s",
}  # fmt: skip


def odd_image(image: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a NIfTI-1 image with odd header fields, cut, flipped, compressed or replaced."""

    @st.composite
    def draw_image(draw: st.DrawFn) -> bytes:
        content = bytearray(image)
        for place in draw(st.lists(st.sampled_from(sorted(_HEADER)), min_size=1, max_size=3)):
            kind = _HEADER[place]
            size = struct.calcsize(kind)
            values = list(struct.unpack_from(kind, content, place))
            which = draw(st.integers(0, len(values) - 1))
            if kind.endswith("f"):
                values[which] = draw(st.floats(width=32) | st.just(0.0))
                struct.pack_into(kind, content, place, *values)
            elif kind.endswith("h"):
                values[which] = draw(st.integers(-(2**15), 2**15 - 1))
                struct.pack_into(kind, content, place, *values)
            else:
                content[place : place + size] = draw(st.binary(min_size=size, max_size=size))
        change = draw(st.sampled_from(["none", "none", "cut", "longer", "flip", "zip", "half zip"]))
        if change == "cut":
            return bytes(content[: draw(st.integers(0, len(content)))])
        if change == "longer":
            return bytes(content) + draw(st.binary(max_size=20))
        if change in ("zip", "half zip"):
            zipped = gzip.compress(bytes(content), 1)
            return zipped if change == "zip" else zipped[: draw(st.integers(0, len(zipped)))]
        if change == "flip":
            place = draw(st.integers(0, len(content) - 1))
            content[place] ^= 255
        return bytes(content)

    return draw_image() | ODD_BYTES


def damaged(content: bytes, most: int = 6) -> st.SearchStrategy[bytes]:
    """Bytes with some of them changed, added, left out or repeated."""
    places = st.integers(0, max(len(content) - 1, 0))
    edits = st.tuples(
        st.sampled_from(["change", "add", "leave out", "repeat", "end"]),
        places,
        st.binary(min_size=1, max_size=9)
        | st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x80" * 9 + b"\x01", b"\0" * 8]),
    )

    def apply(edits: list[tuple[str, int, bytes]]) -> bytes:
        made = bytearray(content)
        for what, place, new in edits:
            if what == "change":
                made[place : place + len(new)] = new
            elif what == "add":
                made[place:place] = new
            elif what == "leave out":
                del made[place : place + len(new)]
            elif what == "repeat":
                made[place:place] = made[place : place + 64]
            elif place > len(content) // 2:
                del made[place:]
        return bytes(made)

    return st.lists(edits, min_size=1, max_size=most).map(apply)
