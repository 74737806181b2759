"""Readings of problems: one packed pass over prompts and gold answers, nothing drawn."""

from collections.abc import Sequence
from typing import Any

import torch

from fastslow.core.types import TokenIds
from fastslow.policy.engine.head import evaluating
from fastslow.policy.engine.layouts import predict
from fastslow.policy.signals import Reading

PROBLEMS_AT_ONCE = 48
"""Problems of one pass; a text they share is computed once."""


@torch.no_grad()
def read_prompts(
    model: Any, examples: Sequence[str], prompts: Sequence[TokenIds], answers: Sequence[TokenIds]
) -> list[Reading]:
    """One reading per problem under the present weights, in order.

    `examples` are ids; the gold answers include their stop token.
    """
    readings: list[Reading] = []
    with evaluating(model):
        for start in range(0, len(prompts), PROBLEMS_AT_ONCE):
            part = slice(start, start + PROBLEMS_AT_ONCE)
            predictions = predict(model, prompts[part], answers[part])
            for row, nodes in enumerate(predictions.nodes, start):
                # one node per answer token -> [tokens, vocab], the first predicts the first token;
                # in float64 so that sums are exact enough
                logits = torch.cat([predictions.logits(slice(node, node + 1)) for node in nodes])
                logprobs = torch.log_softmax(logits.double(), dim=-1)
                first = logprobs[0]  # [vocab]
                best = first.topk(2).values  # [2]
                gold = logprobs[torch.arange(len(nodes)), torch.tensor(answers[row])]  # [tokens]
                reading = Reading(
                    example=examples[row],
                    prompt_tokens=len(prompts[row]),
                    first_entropy=float(-(first.exp() * first).sum()),
                    first_logprob=float(best[0]),
                    first_margin=float(best[0].exp() - best[1].exp()),
                    gold_logprob=float(gold.sum()),
                    state=predictions.states[nodes[0]].float().cpu(),
                )
                readings.append(reading)
    return readings
