"""Samples as lines, and back."""

import pytest

from fastslow.core.samples import Sample, read_sample, sample_line


@pytest.mark.parametrize(
    "texts",
    [
        ("e1", "Peru", "South America"),
        ("a: 'b' -> \"c\"", "it's \"q\"\n -> '", "c' | reward 1 (no)"),
        ("", "", ""),
    ],
)
def test_a_sample_is_read_back_from_its_line(texts: tuple[str, str, str]) -> None:
    example, question, completion = texts
    line = sample_line("a" * 12, example, question, completion, "reward 0.5 (half of it)")
    for text, step in ((line, None), (f"step 7 | {line}", 7)):
        sample = read_sample(text)
        assert sample is not None
        assert (sample.step, sample.text_hash, sample.reward) == (step, "a" * 12, 0.5)
        assert sample.question == repr(question)[1:-1]
        assert sample.completion == repr(completion)[1:-1]


def test_other_lines_are_no_samples_and_a_taught_answer_has_no_reward() -> None:
    assert read_sample("alarm | length collapse") is None
    assert read_sample("text a -> b") is None
    line = sample_line("b" * 12, "e", "q", "gold", "gold, log-prob -1.250")
    sample = read_sample(line)
    assert sample == Sample(None, "b" * 12, "e", "q", "gold", "gold, log-prob -1.250")
    assert sample.reward is None
    assert read_sample(line + " " * 20_000) is None
