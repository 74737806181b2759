"""Writes docs/questions.md from the kept figures: each question with its design and its verdict.

Designs and the meaning of every outcome were written down before the figures were made.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.keeping import ROOT
from benchmarks.questions import design
from benchmarks.questions.design import BASELINE, DEMONSTRATIONS, DRAWS
from benchmarks.questions.markdown import estimate, prose, table, verdict
from benchmarks.questions.rules import form_answer, partial_answer, routing_answer
from benchmarks.questions.trained import (
    adherence_lines,
    arrangements_lines,
    changes_lines,
    orders_lines,
)
from fastslow.policy.signals import PRIMARY

PAGE = ROOT / "docs" / "questions.md"
SHOWN = (
    *(PRIMARY, "hoyer", "gini", "energy_rank", "l0", "l0_unscaled", "top5_energy_unscaled"),
    *("first_logprob", "first_entropy", "first_margin", "question_length", "question_logprob"),
    "ridge on the state",
)
"""Signals of the table of AUROC; the kept file has all of them."""


def page() -> str:
    """The text of the page."""
    lines = [
        "# Questions",
        "",
        *prose(
            "Open questions that a run of this project can answer, each with a design, and what "
            "each outcome means, fixed before its figures were made. Written by "
            "`python -m benchmarks.questions` from the figures in `runs/reference/questions`. All "
            "on SmolLM2-135M-Instruct; `--model` takes any other. Intervals are 95 %."
        ),
    ]
    for name, section in SECTIONS.items():
        kept = design.read(name)
        lines += section(kept) if kept is not None else []
    lines += orders_lines()
    return "\n".join(lines).rstrip() + "\n"


def readings_lines(kept: Any) -> list[str]:
    """Sparsity as a signal of difficulty."""
    tasks = kept["tasks"]
    plain = {name: data["spellings"]["plain"] for name, data in tasks.items()}
    return [
        "## Could activation sparsity say how hard a problem is, cheaply enough to route by?",
        "",
        *prose(
            f"**Design.** Three tasks, all their problems, {DRAWS} draws of {DEMONSTRATIONS} "
            "demonstrations; one packed pass each, no rollout. Difficulty is -ln p(gold answer), "
            "exact; an answer is wrong if the greedy one is not the gold one. Named before "
            f"looking: the signal `{PRIMARY}` (energy in the largest 5 % of the last hidden state, "
            f"at the last prompt token) and the baseline `{BASELINE}` (log-probability of the "
            "likeliest first token, negated: free in the same pass). Familiarity: word frequency, "
            "length and mean log-probability of the question. Spelling: every question also "
            "letter by letter and in capitals, with the same answer."
        ),
        *table(
            ("task", "problems", "right", "mean p(gold)"),
            (
                (
                    name,
                    *(
                        ", ".join(f"{draw[key]:{form}}" for draw in draws)
                        for key, form in (
                            ("problems", "d"),
                            ("right", ".2f"),
                            ("mean_p_gold", ".2f"),
                        )
                    ),
                )
                for name, draws in plain.items()
            ),
        ),
        "Each figure of the primary signal, draw by draw:",
        "",
        *table(
            ("figure", *tasks),
            (
                (label, *(_by_draw(draws, key) for draws in plain.values()))
                for key, label in FIGURES.items()
            ),
        ),
        *verdict(
            "Does it signal difficulty",
            "yes if the lower end given familiarity is above 0 in two of three tasks, in all "
            "draws; no if every upper end is below .1",
            partial_answer({name: _of(draws, "partial") for name, draws in plain.items()}),
            "more draws of demonstrations, since the figure moves as much between draws as within "
            "their intervals; more problems do not help",
        ),
        *verdict(
            "Does it add to what is free",
            "the same, given also the first token's log-probability and entropy",
            partial_answer({name: _of(d, "partial_free") for name, d in plain.items()}),
            "four times the problems, which halves the intervals",
        ),
        "AUROC for wrong answers, mean over the draws:",
        "",
        *table(
            ("signal", *tasks),
            ((name, *(_mean_auroc(draws, name) for draws in plain.values())) for name in SHOWN),
        ),
        *prose(
            "Routing from two demonstrations to twelve, by the signal read under the two. Gain: 1 "
            "is the best order, 0 chance. A pair is eligible if twelve are better by .05 on "
            "average and worse on at most .10 of the problems."
        ),
        *table(
            ("task, draw", "right", "better, worse", "eligible", PRIMARY, BASELINE, "difference"),
            (
                (
                    f"{name}, {draw + 1}",
                    " to ".join(f"{value:.2f}" for value in routed["right"]),
                    f"{routed['better']:.2f}, {routed['worse']:.2f}",
                    "yes" if routed["eligible"] else "no",
                    estimate(routed["gains"][PRIMARY]),
                    estimate(routed["gains"][BASELINE]),
                    estimate(routed[f"against {BASELINE}"]),
                )
                for name, data in tasks.items()
                for draw, routed in enumerate(data["routing"])
            ),
        ),
        *verdict(
            "Is it worth routing on",
            "yes if the lower ends of the differences of AUROC and of routing gain (eligible pairs "
            "alone) are above 0 in two of three tasks, in all draws; no if all upper ends are "
            "below 0",
            routing_answer(
                {name: _of(draws, "against") for name, draws in plain.items()},
                {name: _routed(data) for name, data in tasks.items()},
            ),
            "pairs of arms that are eligible in every draw, which takes a model whose longer "
            "prompt is better nearly everywhere",
        ),
        *prose(
            "The same problems in another spelling; shift in spreads of the signal within the "
            "plain spelling, of each problem the mean over the draws:"
        ),
        *table(
            ("task, spelling", "right", "got harder", "shift", "of harder less of others", "AUROC"),
            (
                (
                    f"{name}, {spelling}",
                    f"{_mean(plain[name], 'right'):.2f} to "
                    f"{_mean(data['spellings'][spelling], 'right'):.2f}",
                    f"{shift['harder']} of {shift['problems']}",
                    estimate(shift["shift"]),
                    estimate(shift[GAP]),
                    f"{_mean_auroc(plain[name], PRIMARY)} to "
                    f"{_mean_auroc(data['spellings'][spelling], PRIMARY)}",
                )
                for name, data in tasks.items()
                for spelling, shift in data["shifts"].items()
            ),
        ),
        *verdict(
            "Does it follow the form of a question, not what the form costs",
            "yes if in two of three tasks, for both spellings, the shift is not 0 and that of "
            "problems that got harder is, within its interval, that of the others; no if the two "
            "differ in two of three tasks for both spellings",
            form_answer(
                {name: _shifts(data, "shift") for name, data in tasks.items()},
                {name: _shifts(data, GAP) for name, data in tasks.items()},
            ),
            "spellings that make no problem harder, so that what moves is the form alone",
        ),
        *_timing_lines(),
        "Command: `python -m benchmarks.questions readings timing`.",
        "",
    ]


def _timing_lines() -> list[str]:
    kept = design.read("timing")
    if kept is None:
        return []
    figures = kept["tasks"]
    return prose(
        f"A pass over {figures['problems']} problems takes {figures['ratio']:.2f} of the time of "
        f"two updates of {figures['rollouts of an update']} rollouts, median of "
        f"{len(figures['readings, seconds'])} turns on the same machine."
    )


GAP = "shift of harder less of others"
COLUMNS = {"problems": "d", "right": ".2f", "mean_p_gold": ".2f"}
FIGURES = {
    "spearman": "Spearman with difficulty",
    "partial": "given familiarity",
    "partial_free": "given familiarity and the free signals",
    "unfamiliarity": "Spearman with unfamiliarity",
    "auroc": "AUROC for wrong answers",
    "against": f"less that of {BASELINE}",
}


def _of(draws: Sequence[Any], key: str) -> list[Any]:
    if key == "against":
        return [draw[f"against {BASELINE}"] for draw in draws]
    return [draw["signals"][PRIMARY][key] for draw in draws]


def _by_draw(draws: Sequence[Any], key: str) -> str:
    sign = "" if key == "auroc" else "+"
    return "<br>".join(estimate(figure, sign) for figure in _of(draws, key))


def _mean(draws: Sequence[Any], key: str) -> float:
    return float(sum(draw[key] for draw in draws) / len(draws))


def _mean_auroc(draws: Sequence[Any], name: str) -> str:
    values = [draw["signals"].get(name, {}).get("auroc", [None])[0] for draw in draws]
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


def _routed(data: Any) -> list[Any]:
    """Differences of routing gain, of eligible pairs."""
    return [r[f"against {BASELINE}"] for r in data["routing"] if r["eligible"]]


def _shifts(data: Any, key: str) -> list[Any]:
    return [shift[key] for shift in data["shifts"].values()]


def steering_lines(kept: Any) -> list[str]:
    """Steering for brevity."""
    tasks = kept["tasks"]
    opens = [name for name, data in tasks.items() if data["test"]["steered"]["score"] > 0.05]
    trials = [trial for data in tasks.values() for trial in data["trials"]]
    strengths = dict.fromkeys(trial["strength"] for trial in trials)
    return [
        "## Does one vector open the regime in which no answer scores?",
        "",
        *prose(
            "**Design.** A vector from 50 pairs of a gold answer and the model's own long one "
            "(ASC, arXiv 2507.04742), added to one layer from the last prompt token on. Layer and "
            "strength are chosen on validation problems by score; the figures are of test "
            "problems, greedy."
        ),
        *table(
            ("task", "layer, strength", "", "bare", "steered", "four demonstrations"),
            (
                (
                    name if key == "score" else "",
                    f"{data['layer']}, {data['strength']:g}" if key == "score" else "",
                    key,
                    *(f"{data['test'][arm][key]:.2f}" for arm in data["test"]),
                )
                for name, data in tasks.items()
                for key in ("score", "tokens")
            ),
        ),
        *prose(
            "The sign, by the length it produces on validation problems: mean tokens of an answer "
            "without the vector and at each strength; answers end at 24 tokens at the latest."
        ),
        *table(
            ("task", "layer", "without", *(f"{strength:g}" for strength in strengths)),
            (
                (
                    name,
                    str(layer),
                    f"{data['bare validation']['tokens']:.1f}",
                    *(f"{t['tokens']:.1f}" for t in data["trials"] if t["layer"] == layer),
                )
                for name, data in tasks.items()
                for layer in dict.fromkeys(trial["layer"] for trial in data["trials"])
            ),
        ),
        *verdict(
            "Does it open the regime",
            "yes if the steered score is above .05 in two of three tasks; no if in none",
            f"yes, in {len(opens)} of {len(tasks)} tasks"
            if len(opens) >= 2
            else ("undecided, in one task" if opens else "no"),
            "more tasks of this kind",
        ),
        "Command: `python -m benchmarks.questions steering`.",
        "",
    ]


SECTIONS: Mapping[str, Callable[[Any], list[str]]] = {
    "readings": readings_lines,
    "arrangements": arrangements_lines,
    "changes": changes_lines,
    "adherence": adherence_lines,
    "steering": steering_lines,
}
"""By the name of the kept figures, in the order of the page."""
