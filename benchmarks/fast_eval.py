"""Scoring texts on examples, ours against what DSPy's users run today, on one machine in one run.

    python -m benchmarks.fast_eval --json out.json         # 8 texts x 32 examples, default model
    python -m benchmarks.fast_eval --programs 2 --examples 4 --repeats 1 --model FOLDER

Texts are the task's instruction with demonstrations up to about 280 tokens. All sides get the same
model, texts, examples and grader and take turns; ratios are medians over the turns. *Plain* is
`dspy.Evaluate` with its default number of threads over a language model that calls transformers'
`generate` for one request at a time. *Batched* is `generate` over padded batches of all requests,
texts repeated, in batches of the fastest of `BATCH_ROWS`. Each side warms up before it is timed;
`--plain-repeats` limits the slowest side's turns.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import dspy
import torch
from dspy.lm15 import Message, Request, Response, Usage

from benchmarks.figures import write_figures
from fastslow.channels.fast.completion_cache import CompletionCache, score_programs
from fastslow.channels.fast.dspy_bridge import (
    EMPTY,
    Metric,
    PolicyEngine,
    PromptModule,
    language_model,
    request_messages,
    to_dspy,
)
from fastslow.channels.fast.scorer import isolated
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Example, Grade, Sampling, TokenIds
from fastslow.policy import model_store
from fastslow.policy.engine.torch_engine import TorchEngine
from fastslow.policy.policy import Policy, load_policy
from fastslow.task.definition import Task
from fastslow.task.registry import find_task
from fastslow.task.splits import spread_answers

Scores: TypeAlias = list[dict[str, float]]
"""For each text, the score of each example by its id."""
BATCH_ROWS = (8, 32)
"""Batch sizes tried for the padded side; `--rows` names another, as a GPU may want."""


class Recorder:
    """A task's grader that keeps what it was shown: every side's completions pass through it."""

    def __init__(self, task: Task) -> None:
        self.grade = task.grade
        self.shown: list[tuple[str, str]] = []

    def __call__(self, example: Example, completion: str) -> Grade:
        """Grade a completion."""
        self.shown.append((example.id, completion))
        return self.grade(example, completion)

    def take(self, examples: int) -> list[list[tuple[str, str]]]:
        """What was shown since the last call: text after text, each by example."""
        shown, self.shown = self.shown, []
        return [sorted(shown[i : i + examples]) for i in range(0, len(shown), examples)]


@dataclass
class Workload:
    """What is scored."""

    policy: Policy
    recorder: Recorder
    task: Task
    """Graded by `recorder`."""
    programs: list[PromptProgram]
    examples: list[Example]

    def prompts(self) -> list[TokenIds]:
        """Token ids of every (text, example), text after text."""
        renderer = self.policy.renderer
        return [renderer.prompt_ids(p, e.question) for p in self.programs for e in self.examples]

    def graded(self, completions: Sequence[str]) -> Scores:
        """Scores of completions in the order of `prompts`."""
        left = iter(completions)
        return [
            {e.id: self.task.grade(e, next(left)).score for e in self.examples}
            for _ in self.programs
        ]


def workload(policy: Policy, name: str, programs: int, examples: int, tokens: int) -> Workload:
    """Texts of about `tokens` tokens for a task, and examples that none of them shows.

    Args:
        policy: Gives the renderer.
        name: A task; its validation and test splits give the examples.
        programs: How many texts.
        examples: How many examples.
        tokens: Length of a text, the question's turn not counted.
    """
    definition = find_task(name)
    task = definition.build(name)
    texts = []
    for index in range(programs):
        pool = list(task.train)
        named_random(0, "text", index).shuffle(pool)
        program = PromptProgram(task.instruction)
        for example in spread_answers(pool):
            shown = (*program.demonstrations, Demonstration(example.question, example.answer))
            longer = PromptProgram(task.instruction, shown)
            if len(policy.renderer.prompt_ids(longer, "")) > tokens:
                break
            program = longer
        texts.append(program)
    recorder = Recorder(task)
    chosen = [*task.validation, *task.test][:examples]
    return Workload(policy, recorder, replace(task, grade=recorder), texts, chosen)


def ours(work: Workload) -> Scores:
    """What the fast channel does: all pairs in one call; nothing kept from earlier turns."""
    work.policy.sampler = TorchEngine(work.policy.model, work.policy.renderer)
    return score_programs(work.policy, work.task, work.programs, work.examples)


def ours_through_dspy(work: Workload) -> Scores:
    """The same through `dspy.Evaluate`, text after text, as DSPy's optimizers ask for it."""
    work.policy.sampler = TorchEngine(work.policy.model, work.policy.renderer)
    cache = CompletionCache(work.policy)
    sampling = Sampling(work.task.max_tokens)
    with PolicyEngine(cache, work.policy.renderer, sampling, threads=len(work.examples)) as engine:
        return evaluated(work, language_model(engine), num_threads=len(work.examples))


def plain(work: Workload) -> Scores:
    """`dspy.Evaluate` over `generate` of one request at a time, DSPy's default threads."""
    lm = dspy.LM(
        "local/plain",
        engine=PlainEngine(work.policy, work.task.max_tokens),
        cache=False,
        num_retries=0,
        temperature=0.0,
        max_tokens=work.task.max_tokens,
    )
    return evaluated(work, lm)


def evaluated(work: Workload, lm: Any, num_threads: int | None = None) -> Scores:
    """Scores by `dspy.Evaluate`, text after text."""
    evaluate = dspy.Evaluate(
        devset=[to_dspy(example) for example in work.examples],
        metric=Metric(work.task, work.examples),
        num_threads=num_threads,
        max_errors=1,
        display_progress=False,
    )
    found = []
    with isolated(), dspy.context(lm=lm):
        for program in work.programs:
            results = evaluate(PromptModule(program)).results
            found.append({example.id: float(score) for example, _, score in results})
    return found


class PlainEngine:
    """A local Hugging Face model as a DSPy engine in the obvious way."""

    def __init__(self, policy: Policy, max_tokens: int) -> None:
        self.policy = policy
        self.max_tokens = max_tokens
        self.lock = threading.Lock()  # threads that share one model only slow each other down

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlainEngine":
        return self

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        prompt = self.policy.renderer.message_ids(request_messages(request))
        with self.lock:
            [text] = generated(self.policy, [prompt], self.max_tokens)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text or EMPTY),
            finish_reason="stop",
            usage=Usage(),
        )


def batched(work: Workload, rows: int) -> Scores:
    """`generate` over padded batches of all requests."""
    prompts = work.prompts()
    texts: list[str] = []
    for start in range(0, len(prompts), rows):
        texts += generated(work.policy, prompts[start : start + rows], work.task.max_tokens)
    return work.graded(texts)


@torch.no_grad()
def generated(policy: Policy, prompts: Sequence[TokenIds], max_tokens: int) -> list[str]:
    """Greedy completions by transformers' own `generate`, padded on the left."""
    width = max(map(len, prompts))
    pad = policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    device = policy.model.device
    drawn = policy.model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=sorted(TorchEngine(policy.model, policy.renderer).stop_ids),
    )
    return [policy.renderer.decode(row) for row in drawn[:, width:].tolist()]


@dataclass
class Side:
    """One way of scoring, and what its turns took and gave."""

    score: Callable[[], Scores]
    repeats: int
    seconds: list[float] = field(default_factory=list)
    scores: Scores = field(default_factory=list)
    """Of the last turn, like `completions`."""
    completions: list[list[tuple[str, str]]] = field(default_factory=list)
    """For each text, every example's id with what the model wrote."""

    def take(self, work: Workload) -> None:
        """Score once; keep the time and what was found."""
        work.recorder.take(len(work.examples))
        started = time.perf_counter()
        self.scores = self.score()
        self.seconds.append(time.perf_counter() - started)
        self.completions = work.recorder.take(len(work.examples))


def measure(
    work: Workload, repeats: int, plain_repeats: int, rows: int | None = None
) -> dict[str, Any]:
    """Let all sides take turns.

    Args:
        work: What is scored.
        repeats: Turns of each side.
        plain_repeats: Turns of the slowest side, at most.
        rows: Batch size of the padded side; None tries `BATCH_ROWS`.
    """
    ours(work), ours_through_dspy(work)  # the first of everything is slower
    small = replace(work, programs=work.programs[:1], examples=work.examples[:2])
    plain(small), batched(small, 2)
    rows = rows or fastest_rows(work)
    sides = {
        "ours": Side(lambda: ours(work), repeats),
        "batched": Side(lambda: batched(work, rows), repeats),
        "ours_through_dspy": Side(lambda: ours_through_dspy(work), repeats),
        "plain": Side(lambda: plain(work), plain_repeats),
    }
    for turn in range(repeats):
        for side in sides.values():
            if turn < side.repeats:
                side.take(work)
    seconds = {name: statistics.median(side.seconds) for name, side in sides.items()}
    stock = sides["plain"]
    differing = {
        name: {
            "scores": differences(side.scores, stock.scores),
            "completions": differences(map(dict, side.completions), map(dict, stock.completions)),
        }
        for name, side in sides.items()
    }
    return {
        "vs_dspy": round(seconds["plain"] / seconds["ours"], 2),
        "vs_batched": round(seconds["batched"] / seconds["ours"], 2),
        "identical": not any(found["scores"] for found in differing.values()),
        "vs_dspy_through_dspy": round(seconds["plain"] / seconds["ours_through_dspy"], 2),
        "differing_from_plain": differing,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "turns": {name: len(side.seconds) for name, side in sides.items()},
        "batched_rows": rows,
        "programs": len(work.programs),
        "examples": len(work.examples),
        "text_tokens": [len(work.policy.renderer.prompt_ids(p, "")) for p in work.programs],
        "max_tokens": work.task.max_tokens,
        "mean_score": round(
            statistics.fmean(v for scores in sides["ours"].scores for v in scores.values()), 4
        ),
    }


def fastest_rows(work: Workload) -> int:
    """The batch size that scores the first text fastest without text reuse."""
    part = replace(work, programs=work.programs[:1])
    taken = {}
    for rows in BATCH_ROWS:
        started = time.perf_counter()
        batched(part, rows)
        taken[rows] = time.perf_counter() - started
    return min(taken, key=lambda rows: taken[rows])


def differences(ours: Iterable[Mapping[str, Any]], reference: Iterable[Mapping[str, Any]]) -> int:
    """Pairs of text and example for which something else was found."""
    return sum(
        mine[key] != theirs[key]
        for mine, theirs in zip(ours, reference, strict=True)
        for key in theirs
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="as model.name")
    parser.add_argument("--task", default="country_continent", help="a task's name")
    parser.add_argument("--programs", type=int, default=8, help="texts")
    parser.add_argument("--examples", type=int, default=32, help="examples")
    parser.add_argument("--tokens", type=int, default=280, help="of a text, about")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--plain-repeats", type=int, default=2, help="turns of plain DSPy, at most")
    parser.add_argument("--rows", type=int, help="batch size of the padded side; tried if absent")
    options = parser.parse_args(arguments)
    policy = load_policy(model_store.resolve(options.model).path_or_id)
    work = workload(policy, options.task, options.programs, options.examples, options.tokens)
    found = measure(
        work, options.repeats, min(options.repeats, options.plain_repeats), options.rows
    )
    print(json.dumps(found, indent=1))
    if options.json:
        write_figures(options.json, found, "fast_eval", arguments)


if __name__ == "__main__":
    main()
