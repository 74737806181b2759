"""Steering for brevity: does one vector open the regime in which no answer scores?

A bare small model answers in sentences where a grader wants a word. From pairs of a problem's short
answer (gold) and the model's own long one a vector is made, the mean difference of a layer's hidden
states at the last token of both; at decoding it is added to that layer from the last prompt token
on. Layer and strength are chosen on validation problems, the figures are of test problems.

Source: ASC (arXiv 2507.04742), whose code disagrees with itself in sign and layer; here the sign is
checked by the length it produces. Nothing of this is a channel: no server applies such a vector.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.questions.setting import Prompted, demonstrated
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Example
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task

PAIRS = 50
LONGEST = 24
"""Tokens of an answer at most."""
DEPTHS = (0.35, 0.5, 0.65, 0.8)
"""Layers that are tried, as shares of the model's depth."""
STRENGTHS = (-1.0, 0.5, 1.0, 2.0)
"""Factors of the vector that are tried; the negative one checks the sign."""
ROWS_AT_ONCE = 40


@contextmanager
def steered(policy: Policy, layer: int, vector: Float[Tensor, " hidden"]) -> Iterator[None]:
    """Within it a layer's output has the vector added at the last position of every pass.

    With a cache and prompts padded on the left these are the last prompt token and the completion.
    """

    def add(_: Any, __: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output  # [rows, tokens, hidden]
        states = torch.cat([states[:, :-1], states[:, -1:] + vector.to(states)], dim=1)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    hook = policy.module.get_decoder().layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def answers(
    policy: Policy, program: PromptProgram, examples: Sequence[Example]
) -> list[tuple[int, ...]]:
    """Greedy completions in transformers' own decoding, padded on the left, without stop tokens."""
    renderer, tokens = policy.renderer, []
    for start in range(0, len(examples), ROWS_AT_ONCE):
        part = examples[start : start + ROWS_AT_ONCE]
        prompts = [renderer.prompt_ids(program, example.question) for example in part]
        width, stop = max(map(len, prompts)), renderer.stop_id
        ids = torch.tensor([[stop] * (width - len(prompt)) + [*prompt] for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        written = policy.module.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=LONGEST,
            eos_token_id=stop,
            pad_token_id=stop,
        )[:, width:]
        for row in written.tolist():
            tokens.append(tuple(row[: row.index(stop)] if stop in row else row))
    return tokens


@torch.no_grad()
def last_states(
    policy: Policy, program: PromptProgram, pairs: Sequence[tuple[Example, tuple[int, ...]]]
) -> Float[Tensor, "layers rows hidden"]:
    """Outputs of every layer at the last token of each answer."""
    states = []
    for example, answer in pairs:
        ids = torch.tensor([[*policy.renderer.prompt_ids(program, example.question), *answer]])
        hidden = policy.module(input_ids=ids, output_hidden_states=True).hidden_states
        states.append(torch.stack([layer[0, -1] for layer in hidden[1:]]))  # the first: embeddings
    return torch.stack(states, dim=1)


def steer(policy: Policy, task: Task) -> dict[str, Any]:
    """What the best vector does to one task, beside the bare model and beside demonstrations."""
    program, renderer = seed_program(task), policy.renderer
    long = answers(policy, program, task.train)
    pairs = [
        (example, answer)
        for example, answer in zip(task.train, long, strict=True)
        if task.grade(example, renderer.decode(answer)).score < 1 and len(answer) > 3
    ][:PAIRS]
    short = [(example, renderer.answer_ids(example.answer)[:-1]) for example, _ in pairs]
    difference = last_states(policy, program, short) - last_states(policy, program, pairs)
    vectors = difference.mean(dim=1)  # [layers, hidden]

    def measure(examples: Sequence[Example], prompt: PromptProgram) -> dict[str, float]:
        written = answers(policy, prompt, examples)
        texts = [renderer.decode(tokens) for tokens in written]
        scores = [task.grade(e, text).score for e, text in zip(examples, texts, strict=True)]
        return {"score": fmean(scores), "tokens": fmean(map(len, written))}

    trials = []
    layers = {min(len(vectors) - 1, int(depth * len(vectors))) for depth in DEPTHS}
    for layer in sorted(layers):
        for strength in STRENGTHS:
            with steered(policy, layer, strength * vectors[layer]):
                figures = measure(task.validation, program)
            trials.append({"layer": layer, "strength": strength, **figures})
            print(f"{task.name}: layer {layer}, strength {strength:g}: {figures}", flush=True)
    best = max(trials, key=lambda trial: (trial["score"], -trial["tokens"]))
    with steered(policy, int(best["layer"]), best["strength"] * vectors[int(best["layer"])]):
        chosen = measure(task.test, program)
    few: Prompted = demonstrated(task, count=4, draw=0)
    return {
        "pairs": len(pairs),
        "bare validation": measure(task.validation, program),
        "trials": trials,
        "layer": best["layer"],
        "strength": best["strength"],
        "test": {
            "bare": measure(task.test, program),
            "steered": chosen,
            "four demonstrations": measure(task.test, few.program),
        },
    }
