"""What each outcome means, as functions of figures [value, low, high]; written before any was made.

An answer begins with yes, no, partly or undecided, and says in how many tasks.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from fastslow.results.report.sections.change import EQUIVALENT, EXCESS, SIGNIFICANT

Figure: TypeAlias = Sequence[float | None]
ByTask: TypeAlias = Mapping[str, Sequence[Figure]]
"""By task, one figure for each draw or seed."""

TASKS = 2
"""Tasks of three that a yes takes."""
NO_PARTIAL = 0.1
"""A partial correlation whose interval ends below this is none."""


def above(figures: Sequence[Figure]) -> bool:
    """Whether there are figures, and all intervals lie above 0."""
    return bool(figures) and all(low is not None and low > 0 for _, low, _ in figures)


def below(figures: Sequence[Figure], limit: float = 0.0) -> bool:
    """Whether all intervals lie below a limit."""
    return all(high is not None and high < limit for _, _, high in figures)


def partial_answer(partials: ByTask) -> str:
    """Whether a signal goes with difficulty beyond what is given."""
    yes = sum(map(above, partials.values()))
    if yes >= TASKS:
        return f"yes, in {yes} of {len(partials)} tasks"
    if all(below(figures, NO_PARTIAL) for figures in partials.values()):
        return "no"
    return f"undecided, above 0 in {yes} of {len(partials)} tasks"


def routing_answer(aurocs: ByTask, gains: ByTask) -> str:
    """Whether a signal is worth routing on; both are differences to the baseline.

    `gains` has none of pairs that are not eligible.
    """
    yes = sum(above(aurocs[task]) and above(gains[task]) for task in aurocs)
    if yes >= TASKS:
        return f"yes, in {yes} of {len(aurocs)} tasks"
    if all(below(aurocs[task]) and below(gains[task]) for task in aurocs):
        return f"no, in no task (eligible pairs in {sum(map(bool, gains.values()))})"
    return f"undecided, yes in {yes} of {len(aurocs)} tasks"


def form_answer(shifts: ByTask, gaps: ByTask) -> str:
    """Whether a signal follows the form of a question and not what the form costs.

    By task a figure for each spelling: the shift, and how much larger it is where problems got
    harder.
    """

    def is_same(task: str) -> list[bool]:
        return [
            low is not None and high is not None and low <= 0 <= high for _, low, high in gaps[task]
        ]

    moved = [
        task for task, figures in shifts.items() if all(above([f]) or below([f]) for f in figures)
    ]
    same = sum(all(is_same(task)) for task in moved)
    different = sum(not any(is_same(task)) for task in gaps)
    if same >= TASKS:
        return f"yes, in {same} of {len(shifts)} tasks"
    if different >= TASKS:
        return f"no, in {different} of {len(shifts)} tasks"
    return f"undecided, yes in {same}, no in {different} of {len(shifts)} tasks"


def concentration_answer(excesses: Mapping[str, Sequence[float]]) -> str:
    """Whether changes are concentrated; energy above the largest of the draws, by task and seed."""
    return _over_tasks([{excess >= EXCESS for excess in of} for of in excesses.values()])


def bridge_answer(bridges: ByTask, p_values: Mapping[str, Sequence[float]]) -> str:
    """Whether changes lie in sparsely active places; one interval and p value for each seed."""

    def is_bridge(figure: Figure, p_value: float) -> bool | None:
        low = figure[1]
        if above([figure]) and p_value <= SIGNIFICANT:
            return True
        is_none = low is not None and low >= -EQUIVALENT and below([figure], EQUIVALENT)
        return False if is_none else None

    return _over_tasks(
        [
            {is_bridge(*pair) for pair in zip(bridges[task], p_values[task], strict=True)}
            for task in bridges
        ]
    )


def place_answer(over_random: ByTask, over_scaled: ByTask) -> str:
    """Whether the place of a change matters; what the largest keep more than others, by seed."""
    energy = sum(map(above, over_random.values()))
    both = sum(above(over_random[task]) and above(over_scaled[task]) for task in over_random)
    if both >= TASKS:
        return f"yes, in {both} of {len(over_random)} tasks"
    if energy >= TASKS:
        return f"partly, above random entries in {energy} of {len(over_random)}, both in {both}"
    return "no" if not energy else f"undecided, above random entries in {energy}"


def fall_answer(difference: Figure) -> str:
    """Whether adherence falls more under the bare problem; adherence there less the other."""
    if below([difference]):
        return "yes"
    return "no, it falls less" if above([difference]) else "undecided"


def _over_tasks(answers: Sequence[set[bool | None]]) -> str:
    """Yes or no over tasks, in each of which all seeds must agree."""
    yes, no = (sum(answer == {side} for answer in answers) for side in (True, False))
    if yes >= TASKS:
        return f"yes, in {yes} of {len(answers)} tasks"
    return "no" if no == len(answers) else f"undecided, yes in {yes}, no in {no} of {len(answers)}"
