from hypothesis import given
from hypothesis import strategies as st

from fastslow.core.text import shorten, visible


def test_escape_sequences_cannot_reach_the_terminal() -> None:
    assert visible("\x1b[2Jgone\x07") == r"\x1b[2Jgone\x07"


def test_a_line_break_cannot_forge_a_second_line() -> None:
    assert visible("score\nfake: 1.0\r\u2028") == r"score\nfake: 1.0\r\u2028"


def test_bidirectional_overrides_become_visible() -> None:
    assert visible("a\u202eb\u2066c") == r"a\u202eb\u2066c"


def test_letters_of_every_script_stay() -> None:
    assert visible("Grüße, 世界, مرحبا — 1 + 2") == "Grüße, 世界, مرحبا — 1 + 2"


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_the_result_is_one_printable_line_that_can_be_encoded(text: str) -> None:
    line = visible(text)
    line.encode("utf-8")
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    assert visible(line) == line


def test_a_long_text_is_cut_to_the_limit_and_says_so() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
