"""Stages that change the same weights, as the report groups them."""

from fastslow.results.report.sections.weights import connected


def test_groups_are_what_pairs_connect() -> None:
    names = ["1 a", "2 b", "3 c", "4 d", "5 e"]
    assert connected(names, []) == [[name] for name in names]
    pairs = [["1 a", "4 d"], ["2 b", "3 c"], ["4 d", "5 e"], ["1 a", "5 e"]]
    assert connected(names, pairs) == [["1 a", "4 d", "5 e"], ["2 b", "3 c"]]
    assert connected(names, [["2 b", "1 a"], ["3 c", "2 b"]]) == [
        ["1 a", "2 b", "3 c"],
        ["4 d"],
        ["5 e"],
    ]
