"""Plain prose that belongs to no task, and how well the policy predicts it.

A loss on it comes from training on something else. The passages were written for this
project and are free under its licence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.core.types import TokenIds
from fastslow.measure.model.drift import Drift, DriftInputs, token_mean
from fastslow.policy.activations import Activations
from fastslow.policy.policy import Policy

NEUTRAL_TOKENS = 8
"""Limit of a continuation of neutral prose. Source: ours, that of word-level tasks: inputs with the
same limit are drawn together."""

NEUTRAL_PASSAGES: tuple[str, ...] = (
    "The bakery on the corner opens before sunrise. By the time the first bus stops outside, the "
    "shelves are full and the windows have fogged over. Most people who come in at that hour buy "
    "the same thing every day, and the woman behind the counter rarely has to ask.",
    "Rivers carry more than water. Each spring, when the snow melts in the hills, the current "
    "picks up sand and small stones and sets them down again wherever it slows. Over many years "
    "this moves the banks, so that a village built beside the water may end up far away from it.",
    "To repot a plant, loosen the soil around the edge with a knife and tip the pot on its side. "
    "The roots should come out in one piece. Shake off the old earth gently, set the plant in a "
    "slightly larger pot, and water it well before putting it back in the light.",
    "My grandfather kept bees for forty years and was stung so often that he stopped noticing. He "
    "said the trick was to move slowly and to think of something dull. I tried it once, thought "
    "of arithmetic homework, and was stung on the ear all the same.",
    "A bridge has to stand up to more than the weight of the traffic. Wind pushes it from the "
    "side, heat makes it longer, frost makes it shorter, and water gets into every crack. "
    "Engineers leave gaps at both ends so that the deck can move without tearing itself apart.",
    "The library lends out tools as well as books now. You can borrow a drill for a weekend, or a "
    "sewing machine for a month, and nobody minds if it comes back with a scratch. The longest "
    "waiting list is for the carpet cleaner, especially after the holidays.",
    "Before clocks were common, a town told the time by its bells. They rang for the start of "
    "work and for its end, for fires, for weddings and for the closing of the gates. Visitors who "
    "did not know the signals were often late, or found themselves locked out for the night.",
    "She had planned to walk to the lighthouse and back before lunch, but the path was washed out "
    "beyond the second field. So she sat on a wall, ate her sandwich early, and watched two dogs "
    "argue over a stick until it started to rain.",
    "Salt was once worth carrying across a desert. It kept meat and fish from spoiling, and in "
    "hot countries people and cattle could not do without it. Whole cities grew rich on the roads "
    "along which it travelled, and grew poor again when it began to come by sea.",
    "A cat that has lived in one house all its life treats a new one with suspicion. It keeps to "
    "the walls, sniffs at each doorway, and hides behind the largest piece of furniture. After a "
    "few days it decides that the place belongs to it, and everyone else may stay.",
    "The choir meets on Thursdays in the old school hall. There is no audition, and half of the "
    "members cannot read music, but they listen well to one another. In December they sing at the "
    "hospital, where they are given tea and far too many biscuits.",
    "When bread dough is left in a warm room, the yeast in it feeds on sugar and gives off gas. "
    "The gas is caught in the stretchy dough and makes it swell. If it is left for too long, the "
    "walls of the bubbles tear, and the loaf comes out flat and sour.",
    "The train was delayed by an hour, and nobody on the platform knew why. A man in a yellow "
    "coat began to hand round a bag of plums from his garden. By the time the signal changed, "
    "strangers were exchanging recipes, and some of them seemed sorry to leave.",
    "Glass is made by melting sand with a little ash and lime. While it is hot it can be blown, "
    "pulled or poured; once it cools it keeps whatever shape it was given. Old windows are often "
    "thicker at one edge because the sheets were spun by hand and came out uneven.",
    "Birds that spend the summer in the north leave when the days grow short. Some of them fly at "
    "night and steer by the stars, others follow coasts and rivers. Young ones making the journey "
    "for the first time set off without their parents and arrive in the right place.",
    "The committee agreed to repaint the fence but could not agree on the colour. Green was "
    "thought to be too dark and white too hard to keep clean. In the end they asked the children, "
    "who chose yellow, and everyone said that this was what they had wanted all along.",
)


@dataclass(frozen=True)
class NeutralPass:
    """One pass over the passages: how well they are predicted, and what the units did in it."""

    logprobs: list[tuple[float, ...]]
    """Log-probability of each token of each passage but the first, in nats."""
    activations: Activations
    """Of all positions; the proxies of plasticity are measured on them too."""


@dataclass(frozen=True)
class NeutralText:
    """How well the policy predicts text that belongs to no task."""

    tuned: Drift
    """Cross-entropy, adapter on."""
    base: Drift
    """Adapter off."""
    delta: Drift
    """`neutral_ce_delta`, tuned - base: positive = general language got worse."""


def read_neutral(
    policy: Policy, passages: Sequence[str] = NEUTRAL_PASSAGES, *, adapter: bool = True
) -> NeutralPass:
    """Take the passages through the model, no prompt around them.

    Args:
        policy: Not changed.
        passages: Each of two tokens at least.
        adapter: False reads with the base.
    """
    rows = neutral_ids(policy, passages)
    activations = policy.activations(rows, adapter=adapter)
    logprobs = policy.next_token_logprobs(rows, activations, adapter=adapter)
    return NeutralPass(logprobs, activations)


def neutral_cross_entropy(
    tuned: Sequence[Sequence[float]], base: Sequence[Sequence[float]]
) -> NeutralText:
    """Cross-entropy of the passages with the adapter on and off.

    The first token of a passage is given; all others are predicted.

    Args:
        tuned: `NeutralPass.logprobs` of the tuned policy.
        base: The same of the base.

    Source: TRACE (arXiv 2310.06762) for the deltas of general ability; the passages are ours.
    """
    pairs = list(zip(tuned, base, strict=True))
    return NeutralText(
        tuned=token_mean([tuple(-x for x in row) for row in tuned]),
        base=token_mean([tuple(-x for x in row) for row in base]),
        delta=token_mean([tuple(b - a for a, b in zip(x, y, strict=True)) for x, y in pairs]),
    )


def neutral_ids(policy: Policy, passages: Sequence[str] = NEUTRAL_PASSAGES) -> list[TokenIds]:
    """Token ids of the passages, without special tokens or a chat template."""
    return [
        tuple(policy.tokenizer(passage, add_special_tokens=False)["input_ids"])
        for passage in passages
    ]


def neutral_inputs(policy: Policy, count: int) -> DriftInputs:
    """The first halves of `count` passages: inputs of no task for `drift_on`."""
    rows = neutral_ids(policy, NEUTRAL_PASSAGES[:count])
    return DriftInputs(tuple(row[: max(1, len(row) // 2)] for row in rows), NEUTRAL_TOKENS)
