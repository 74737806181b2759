"""Readings of problems: one packed pass over prompts and gold answers, nothing drawn."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.head import evaluating, hidden_states
from fastslow.policy.engine.layouts import Predictions, predict
from fastslow.policy.signals import Reading

PROBLEMS_AT_ONCE = 48
"""Problems of one pass; a text they share is computed once."""
NODES_AT_ONCE = 256
"""Positions whose logits are in memory together: 50 MB at a vocabulary of 50,000 in float32."""


class Problem(NamedTuple):
    """A prompt with its gold answer."""

    example: str
    """`Example.id`."""
    prompt: TokenIds
    question: slice
    """Where the question stands in it; not at its first token."""
    answer: TokenIds
    """The gold answer with its stop token."""


class FinalNorm(NamedTuple):
    """What the last norm does to a normalized vector: `scale` times it, plus `shift`."""

    scale: Float[Tensor, " hidden"]
    shift: Float[Tensor, " hidden"]

    def undone(self, state: Float[Tensor, " hidden"]) -> Float[Tensor, " hidden"]:
        """The state without scale and shift; 0 where the scale is 0."""
        is_scaled = self.scale != 0
        return torch.where(is_scaled, (state - self.shift) / self.scale.where(is_scaled, 1.0), 0.0)


@torch.no_grad()
def read_prompts(model: Any, problems: Sequence[Problem]) -> list[Reading]:
    """One reading per problem under the present weights, in order."""
    readings: list[Reading] = []
    with evaluating(model):
        norm = final_norm(model) if problems else None
        for start in range(0, len(problems), PROBLEMS_AT_ONCE):
            readings += _read(model, problems[start : start + PROBLEMS_AT_ONCE], norm)
    return readings


def _read(model: Any, problems: Sequence[Problem], norm: FinalNorm | None) -> Iterator[Reading]:
    """Readings of one pass, whose completions begin with the question, so that it is predicted."""
    beginnings = [problem.prompt[: problem.question.start] for problem in problems]
    rests = [(*p.prompt[p.question.start :], *p.answer) for p in problems]
    predictions = predict(model, beginnings, rests)
    # nodes[i] predicts token i of the rest: of the question first, of the answer last
    question_sizes = [p.question.stop - p.question.start for p in problems]
    answer_sizes = [len(problem.answer) for problem in problems]
    pairs = list(zip(predictions.nodes, rests, strict=True))
    questions = [(n[:size], r[:size]) for (n, r), size in zip(pairs, question_sizes, strict=True)]
    answers = [(n[-size:], r[-size:]) for (n, r), size in zip(pairs, answer_sizes, strict=True)]
    question_scores = torch.split(_scores(predictions, questions).logprobs, question_sizes)
    answer_scores = _scores(predictions, answers)
    golds = torch.split(answer_scores.logprobs, answer_sizes)
    greedy = torch.split(answer_scores.is_best, answer_sizes)
    first = 0
    for row, (problem, (nodes, _)) in enumerate(zip(problems, answers, strict=True)):
        if predictions.head is None:  # its states are logits
            ids = torch.tensor([problem.prompt], device=model.device)
            state = hidden_states(model, input_ids=ids, use_cache=False)[0, -1].float().cpu()
        else:
            state = predictions.states[nodes[0]].float().cpu()
        best = answer_scores.best[first]  # [2]
        yield Reading(
            example=problem.example,
            prompt_tokens=len(problem.prompt),
            question_tokens=question_sizes[row],
            question_logprob=float(question_scores[row].mean()),
            first_entropy=float(answer_scores.entropies[first]),
            first_logprob=float(best[0]),
            first_margin=float(best[0].exp() - best[1].exp()),
            gold_logprob=float(golds[row].sum()),
            gold_is_greedy=bool(greedy[row].all()),
            state=state,
            unscaled=None if norm is None else norm.undone(state),
        )
        first += answer_sizes[row]


class _Scores(NamedTuple):
    """What the model says at each node of some rows, one after the other, in double precision."""

    logprobs: Float[Tensor, " nodes"]
    """Of the target, nats."""
    entropies: Float[Tensor, " nodes"]
    """Of the whole distribution, nats."""
    best: Float[Tensor, "nodes 2"]
    """Of the two most likely tokens, nats."""
    is_best: Bool[Tensor, " nodes"]
    """Whether the target is the most likely token."""


def _scores(predictions: Predictions, rows: Sequence[tuple[Sequence[int], TokenIds]]) -> _Scores:
    """Of rows of nodes and targets, all together, so that the head is read once for many."""
    device = predictions.states.device
    nodes = [node for row, _ in rows for node in row]
    targets = torch.tensor([token for _, tokens in rows for token in tokens], device=device)
    chunks = []
    for start in range(0, len(nodes), NODES_AT_ONCE):
        part = slice(start, start + NODES_AT_ONCE)
        logits = predictions.logits(nodes[part]).float()  # [chunk, vocabulary]
        logprobs = logits - logits.logsumexp(-1, keepdim=True)
        best, tokens = logprobs.topk(2)
        chunks.append(
            (
                logprobs.gather(1, targets[part, None])[:, 0],
                -(logprobs.exp() * logprobs).sum(-1),
                best,
                tokens[:, 0] == targets[part],
            )
        )
    values = [torch.cat(column) for column in zip(*chunks, strict=True)]
    return _Scores(values[0].double(), values[1].double(), values[2].double(), values[3])


def final_norm(model: Any) -> FinalNorm | None:
    """Scale and shift of the norm whose outputs are the last hidden states; None without one.

    Read off the norm's own outputs, since families write its scale in several ways: a vector of
    mean 0 and length root d goes through as `scale` times itself, plus `shift`.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    outputs: list[tuple[Any, Tensor]] = []
    with ExitStack() as hooks:
        for module in base.get_decoder().children():
            if "norm" in type(module).__name__.casefold():
                hook = module.register_forward_hook(
                    lambda m, _, output: outputs.append((m, output))
                )
                hooks.enter_context(hook)
        ids = torch.arange(2, device=model.device)[None]
        states = hidden_states(model, input_ids=ids, use_cache=False)  # [1, 2, hidden]
    for norm, output in outputs:
        if torch.equal(output, states):
            signs = torch.ones_like(states[0, :1])  # [1, hidden], 1 and -1 in turn
            signs[:, 1::2] = -1
            up, down = (norm(vector)[0].float().cpu() for vector in (signs, -signs))
            return FinalNorm((up - down) / 2 * signs[0].float().cpu(), (up + down) / 2)
    return None
