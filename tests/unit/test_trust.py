"""docs/trust.md names a test for every promise, and every test it names exists."""

import re

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "trust.md").read_text()
TABLES = re.findall(r"^\| promise \| test \|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|$", "".join(TABLES), re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_promise_names_a_test_and_every_test_named_exists() -> None:
    promises = [row for row in ROWS if row[0] != "---"]
    assert len(promises) > 80
    assert [promise for promise, tests in promises if not NAMED.search(tests)] == []
    named = [found for _, tests in promises for found in NAMED.findall(tests)]
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
    assert len(set(named)) == len(named)


def test_nothing_but_tests_stands_in_the_column_of_tests() -> None:
    others = [tests for _, tests in ROWS if tests != "---"]
    assert [tests for tests in others if NAMED.sub("", tests).strip(", ")] == []
