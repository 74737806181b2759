"""A sampled rollout as a line that people read, and read back from it.

Runs keep such lines in `rollouts/`; all of it is untrusted text.
"""

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"""
    (?:step[ ](?P<step>\d+)[ ]\|[ ])?
    text[ ](?P<text>[0-9a-f]{12})[ ]\|[ ]
    (?P<example>.*?):[ ]
    (?P<question>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[ ]->[ ]
    (?P<completion>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[ ]\|[ ]
    (?P<outcome>.*)
    """,
    re.VERBOSE,
)
_LONGEST = 20_000
"""Characters of a line that is read."""
_FIGURE = re.compile(r"(?:reward|score) (-?[0-9.e+-]+) \((.*)\)")


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion of a training problem."""

    step: int | None
    """The update it was drawn for, from 1 in its cycle."""
    text_hash: str
    """Of the prompt."""
    example: str
    question: str
    """As Python writes it, without the quotes around it; so is `completion`."""
    completion: str
    outcome: str
    """Its reward and why, or what was taught."""

    @property
    def reward(self) -> float | None:
        """Its reward or score; None where a gold answer was taught."""
        figure = _FIGURE.fullmatch(self.outcome)
        try:
            return float(figure[1]) if figure else None
        except ValueError:
            return None


def sample_line(text_hash: str, example: str, question: str, completion: str, outcome: str) -> str:
    """The line of a sample, to be read back by `read_sample`."""
    return f"text {text_hash} | {example}: {question!r} -> {completion!r} | {outcome}"


def read_sample(line: str) -> Sample | None:
    """The sample in a line, with `step N | ` before it or not; None where it is something else."""
    match = _LINE.fullmatch(line) if len(line) <= _LONGEST else None
    if match is None:
        return None
    step, *texts = match.groups()
    text_hash, example, question, completion, outcome = texts
    number = int(step) if step else None
    return Sample(number, text_hash, example, question[1:-1], completion[1:-1], outcome)
