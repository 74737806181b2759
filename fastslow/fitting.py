"""Whether every example fits into the model's context, told before anything is trained.

New texts of the fast channel are held to the same limit by its guard (`channels/scoring.py`), so
that no prompt of a run is longer than what the model reads.
"""

from collections.abc import Iterable

from fastslow.errors import TaskError
from fastslow.policy.policy import Policy, seed_program
from fastslow.task import Task
from fastslow.text import shorten


def require_fit(policy: Policy, tasks: Iterable[Task], teaches_gold: bool) -> None:
    """Make sure that every prompt and its answer fit under the task's seed text.

    Args:
        policy: Gives renderer and context length; a model without one takes everything.
        tasks: All splits of each are looked at.
        teaches_gold: Whether gold answers are trained on, which may be longer than completions.

    Raises:
        TaskError: One does not; names the longest, with its tokens and the model's.
    """
    limit = policy.context_length
    for task in tasks if limit is not None else ():
        assert limit is not None
        text, renderer = seed_program(task), policy.renderer
        frame = len(renderer.prompt_ids(text, ""))
        worst, tokens = "", 0
        for example in (*task.train, *task.validation, *task.test):
            gold = len(example.answer.encode()) + 1 if teaches_gold else 0
            # a token is a byte at least, so most need not be counted
            if frame + len(example.question.encode()) + max(task.max_tokens, gold) <= limit:
                continue
            answer = len(renderer.answer_ids(example.answer)) if teaches_gold else 0
            needed = len(renderer.prompt_ids(text, example.question)) + max(task.max_tokens, answer)
            if needed > tokens:
                worst, tokens = example.id, needed
        if tokens > limit:
            raise TaskError(
                f"task {task.name}: example {shorten(worst, 60)!r} needs {tokens} tokens, prompt "
                f"and answer of at most {task.max_tokens} together, but the model reads {limit}. "
                "Take a model with a longer context, shorten the task's instruction or max_tokens, "
                "or leave its long examples out."
            )
