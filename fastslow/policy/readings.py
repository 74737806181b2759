"""Readings of problems: one packed pass over prompts and gold answers, nothing drawn."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.head import evaluating, hidden_states
from fastslow.policy.engine.layouts import Predictions, predict
from fastslow.policy.signals import Reading

PROBLEMS_AT_ONCE = 48
"""Problems of one pass; a text they share is computed once."""


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
    for problem, rest, nodes in zip(problems, rests, predictions.nodes, strict=True):
        # nodes[i] predicts token i of the rest
        length = problem.question.stop - problem.question.start
        question_logprobs = _target_logprobs(predictions, nodes[:length], rest[:length])
        nodes = nodes[len(rest) - len(problem.answer) :]
        # [answer tokens, vocabulary], in float64 so that sums are exact enough
        logprobs = torch.log_softmax(predictions.logits(nodes).double(), dim=-1)
        first, targets = logprobs[0], torch.tensor(problem.answer, device=logprobs.device)
        best = first.topk(2).values  # [2]
        if predictions.head is None:  # its states are logits
            ids = torch.tensor([problem.prompt], device=model.device)
            state = hidden_states(model, input_ids=ids, use_cache=False)[0, -1].float().cpu()
        else:
            state = predictions.states[nodes[0]].float().cpu()
        yield Reading(
            example=problem.example,
            prompt_tokens=len(problem.prompt),
            question_tokens=length,
            question_logprob=float(question_logprobs.double().mean()),
            first_entropy=float(-(first.exp() * first).sum()),
            first_logprob=float(best[0]),
            first_margin=float(best[0].exp() - best[1].exp()),
            gold_logprob=float(logprobs.gather(1, targets[:, None]).sum()),
            gold_is_greedy=bool((logprobs.argmax(1) == targets).all()),
            state=state,
            unscaled=None if norm is None else norm.undone(state),
        )


def _target_logprobs(
    predictions: Predictions, nodes: Sequence[int], targets: TokenIds
) -> Float[Tensor, " targets"]:
    """Log-probability of each target at its node, in nats."""
    logits = predictions.logits(nodes).float()  # [targets, vocabulary]
    chosen = torch.tensor(targets, device=logits.device)[:, None]
    return logits.gather(1, chosen)[:, 0] - logits.logsumexp(-1)


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
