"""How many new prompts a budget of rollouts pays for, by optimizer: pure arithmetic.

`fastslow check` refuses a budget by these figures before a run, and a fast phase plans by them. All
are lower bounds: answers that are known already cost nothing, and leave room for more.

`rollouts` is the budget after old prompts were re-scored, `anchor` the number of problems a prompt
is scored on, `pool` that of the examples demonstrations are taken from.
"""

from collections.abc import Callable

FEWEST_PROPOSALS = 2
"""A fast phase that cannot make this many new prompts is refused: one is not a search."""


def demos_proposals(rollouts: int, anchor: int, pool: int, measures_pool: bool) -> int:
    """Prompts that the search over demonstrations can make and score.

    Labelled and bootstrapped ones take turns; a bootstrapped one asks for up to the whole pool, and
    makes way for a labelled one when that does not fit.
    `measures_pool`: whether every example of the pool is asked once first, for its pass rate.
    """
    rollouts = max(0, rollouts - (pool if measures_pool else 0))
    pairs, rest = divmod(rollouts, 2 * anchor + pool)
    return 2 * pairs + rest // anchor  # less than a pair pays for labelled ones alone


def gepa_proposals(rollouts: int, anchor: int, minibatch: int, old: int) -> int:
    """Prompts that GEPA can propose and score in full.

    Each old prompt but the first is brought in as a proposal, whose scores on the anchor set are
    known. A proposal costs its parent's minibatch, its own, and the anchor set.

    Source: GEPA (arXiv 2507.19457) as the gepa package 0.1 counts it: 2M + V per proposal, with M
        the minibatch and V the anchor set; `old` is at least 1.
    """
    return max(0, rollouts - (old - 1) * 2 * minibatch) // (2 * minibatch + anchor)


def simba_proposals(rollouts: int, anchor: int, pool: int, batch: int, candidates: int) -> int:
    """Prompts of SIMBA that get as far as the anchor set: the winners of its steps."""
    return min(candidates, simba_steps(rollouts, anchor, pool, batch, candidates))


def simba_steps(rollouts: int, anchor: int, pool: int, batch: int, candidates: int) -> int:
    """Steps of SIMBA that fit; see `simba_rollouts`."""
    return _first(lambda n: simba_rollouts(n + 1, anchor, pool, batch, candidates) > rollouts)


def simba_rollouts(steps: int, anchor: int, pool: int, batch: int, candidates: int) -> int:
    """Rollouts of `steps` steps of SIMBA at most, its last comparison and our scoring included.

    A step draws `candidates` answers to each example of its batch and scores at most one prompt
    more than that on it. In the end up to `candidates` winners and the start are scored on all
    examples met so far, and we score the winners on the anchor set.

    Source: dspy.SIMBA of DSPy 3.4.
    """
    winners = min(steps, candidates)
    met = min(pool, steps * batch)
    return steps * batch * (2 * candidates + 1) + (winners + 1) * met + winners * anchor


def mipro_trials(rollouts: int, anchor: int, pool: int, candidates: int) -> int:
    """Trials of MIPRO that fit: each scores one combination of instruction and demonstrations.

    Before them it scores its start and bootstraps all sets of demonstrations but two, going through
    the pool at most once for each.

    Source: dspy.MIPROv2 of DSPy 3.4.
    """
    return max(0, rollouts - anchor - max(0, candidates - 2) * pool) // anchor


def fewest_rollouts(proposals: Callable[[int], int]) -> int:
    """The smallest budget of which `proposals` says that it pays for `FEWEST_PROPOSALS`."""
    return _first(lambda rollouts: proposals(rollouts) >= FEWEST_PROPOSALS)


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest number >= 0 for which `holds`, which stays true for all larger ones.

    Takes time with the logarithm of the number, of any size: configurations may ask for anything.
    """
    low, high = 0, 1
    while not holds(high):
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
