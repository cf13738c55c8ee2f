"""Where problems are: line and column as an editor counts them, and the tab that nobody sees."""

from __future__ import annotations

import pytest
from metaprotocol.diagnostics import Origin
from metaprotocol.resources import load_text
from metaprotocol.resources.yaml_reader import split_documents

# Text, and line and column of its tab.
TABS = {
    "before a key": ("a:\n\tb: c\n", 2, 1),
    "before the first key": ("\ta: b\n", 1, 1),
    "after spaces": ("a:\n  \tb: c\n", 2, 3),
    "after a text": ("a:\n  b: c\n\td: e\n", 3, 1),
    "after a text, deeper": ("a: b\n    \tc: d\n", 2, 5),
    "after a number": ("a:\n  b: 1\n  \tc: 2\n", 3, 3),
    "before an entry": ("a:\n\t- b\n", 2, 1),
    "before the second entry": ("a:\n  - b\n\t- c\n", 3, 1),
    "after a dash": ("a:\n-\tb: 1\n", 2, 2),
    "after a dash and a space": ("- \ta: 1\n  b: 2\n", 1, 3),
    "between dashes": ("-\t- a\n", 1, 2),
    "in an entry": ("a:\n- b: 1\n\tc: 2\n", 3, 1),
    "before a comment": ("a: b\n\t# c\nd: e\n", 2, 1),
    "in an empty line": ("a: b\n\t\nd: e\n", 2, 1),
    "in a block of text": ("a: |\n  x\n\ty\n", 3, 1),
    "at the start of a block of text": ("a: |\n\tx\n", 2, 1),
    "in folded text": ("a: >\n \tx\n\n\t\n", 2, 2),
    "after a question mark": ("?\ta\n:\tb\n", 1, 2),
    "with Windows' line ends": ("a:\r\n  b: c\r\n\td: e\r\n", 3, 1),
    "after another document": ("a: b\n---\nc:\n\td: e\n", 4, 1),
    "in a list of mappings in text": ("a:\n  - b: c\n  \t  d: e\n", 3, 3),
}


@pytest.mark.parametrize(("text", "line", "column"), TABS.values(), ids=TABS.keys())
def test_a_tab_that_is_in_the_way_is_named_and_pointed_at(
    text: str, line: int, column: int
) -> None:
    (error,) = (item for item in load_text(text, "a.yaml").diagnostics if item.code == "bad-yaml")
    assert "tab" in error.message
    assert error.fix == "indent with spaces, not tabs"
    assert error.origin == Origin("a.yaml", line, column)


@pytest.mark.parametrize(
    "text",
    ["a: b\t\nc: d\n", "a:\tb\n", "a: {\n\tb: c\n}", "a: [b,\n\tc]", 'a: "b\n\tc"', "a: b\t# c\n"],
)  # fmt: skip
def test_a_tab_that_yaml_allows_is_no_problem(text: str) -> None:
    (document,) = split_documents(text, "a.yaml")
    assert document.value()[0]


@pytest.mark.parametrize(
    ("text", "words", "line", "column"),
    [
        ('a: "b\n\tc\nd: e\n', "a text in quotes does not end", 1, 4),
        ("a: @b\n", 'found "@" at the beginning of a text', 1, 4),
        ("a: b: c\n", "mapping values are not allowed", 1, 5),
        ("é: \x07\n", "control characters are not allowed", 1, 4),
        ("a: b\nc: \ud800\n", "no text can hold", 2, 4),
    ],
    ids=["quotes", "at sign", "colon", "control character", "half a character"],
)
def test_what_is_no_yaml_is_pointed_at(text: str, words: str, line: int, column: int) -> None:
    (error,) = load_text(text, "a.yaml").diagnostics
    assert words in error.message
    assert error.origin == Origin("a.yaml", line, column)


ROUTER = """\
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: a, namespace: shop}
spec:
  hosts: [a.shop.svc.cluster.local]
  # %s
  routes: [{name: "%s", rout: [], route: [{destination: {host: a.shop.svc.cluster.local}}]}]
"""


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029"], ids=["NEL", "LS", "PS"])
def test_what_ends_no_line_in_an_editor_ends_none_here(end: str) -> None:
    text = ROUTER % (end, f"x{end}y")
    (error,) = load_text(text, "a.yaml").diagnostics
    line = next(line for line in text.split("\n") if "rout:" in line)
    assert error.field == "spec.routes[0].rout"
    assert error.origin == Origin("a.yaml", 7, line.index("rout:") + 1)
    (first,) = load_text(f"# {end}{end}\n" + ROUTER.replace("rout: [], ", ""), "a.yaml").resources
    assert first.origin == Origin("a.yaml", 2, 1)


def test_every_document_of_a_file_counts_from_the_start_of_the_file() -> None:
    text = ROUTER.replace("rout: [], ", "") + "---\n" + ROUTER.replace("name: a,", "name: b,")
    (error,) = load_text(text, "a.yaml").diagnostics
    assert error.origin is not None
    assert error.origin.line == 15
