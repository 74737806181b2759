"""What a run leaves behind, and where that of two runs differs."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

AROUND = 200
"""Characters shown before and after the first one that differs."""


class Outcome(dict[str, Any]):
    """What is compared of a run; where two that should be equal are not, pytest says where."""


def differences(left: Any, right: Any, where: str = "") -> Iterator[str]:
    """A line for each place at which two outcomes differ, with what stands there in both."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted(left.keys() | right.keys()):
            yield from differences(
                left.get(name, "absent"), right.get(name, "absent"), f"{where}/{name}"
            )
    elif isinstance(left, list) and isinstance(right, list):
        for place, pair in enumerate(zip_longest(left, right)):
            yield from differences(*pair, f"{where}/{place}")
    elif left != right:
        texts = [repr(value) for value in (left, right)]
        pairs = enumerate(zip_longest(*texts))
        first = next((place for place, (one, other) in pairs if one != other), 0)  # 0: not a number
        one, other = (text[max(0, first - AROUND) : first + AROUND] for text in texts)
        yield f"{where}, at character {first}: {one} != {other}"
