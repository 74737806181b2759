"""The part of docs/questions.md on trained runs: changes, adherence, arrangements, orders."""

import json
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from benchmarks.keeping import REFERENCE
from benchmarks.questions.markdown import estimate, prose, table, verdict
from benchmarks.questions.rules import (
    TASKS,
    bridge_answer,
    concentration_answer,
    fall_answer,
    place_answer,
)
from fastslow.measure.stats.over_seeds import over_seeds_and_examples
from fastslow.policy.signals import FREE, PRIMARY
from fastslow.results.report.sections.change import EQUIVALENT, EXCESS

ORDERS = REFERENCE / "ablations" / "orders" / "records.jsonl"
PARTS = {
    "top": "largest 5 %",
    "rest": "all but the largest",
    "random": "random 5 %",
    "random_energy": "random of the energy of the largest",
    "scaled": "all scaled to the energy of the largest",
}
"""What stands in the place of a change, by its name in the records."""
Arms = Mapping[str, Mapping[str, Any]]
"""By arm and seed, what `kept_runs` kept."""


def changes_lines(kept: Any) -> list[str]:
    """Whether changes concentrate, the place matters, and the place is sparsely active."""
    arms: Arms = kept["arms"]
    lines = [
        "## Do changes that a task needs concentrate, and in sparsely active places?",
        "",
        *prose(
            "**Design.** One task a run: a prompt chosen by the fast channel, then 16 updates "
            "under it at rank 8, by gold answers (`gold`) or policy gradient (`policy`); two "
            "seeds. Named before looking: shares of 5 %. *Concentration*: energy of the largest "
            "entries, beside 19 products of Gaussian factors of the same rank and norms. *Place*: "
            "the loss of validation answers when only the largest entries stay, against random "
            "ones that hold the same energy, and against all entries scaled to that energy. "
            "*Bridge*: partial Spearman of a unit's lifetime sparseness and the energy of the "
            "gradient at it, given its mean activity, less the same for answers rotated among "
            "problems. Means over seeds; an outcome must hold in every seed of a task."
        ),
    ]
    for kind in ("gold", "policy"):
        of_kind = {arm: runs for arm, runs in arms.items() if arm.startswith(kind)}
        lines += _kind_lines(kind, of_kind)
    return [
        *lines,
        f"Command: `{kept['command']}`, then `python -m benchmarks.questions changes`.",
        "",
    ]


def _kind_lines(kind: str, arms: Arms) -> list[str]:
    tasks = {arm.partition("-")[2]: list(runs.values()) for arm, runs in arms.items()}
    rows = [
        ("energy, largest 5 %", "concentration", "energy_top5_frac"),
        ("of random products, mean", "concentration", "energy_top5_null_lora"),
        ("of random products, largest", "concentration", "energy_top5_null_lora_max"),
        *((f"gain kept, {words}", "keep_curve", f"keep_{p}5") for p, words in PARTS.items()),
        ("largest less random of that energy", "keep_curve", "keep_top5_minus_random_energy"),
        ("largest less all scaled", "keep_curve", "keep_top5_minus_scaled"),
        ("sparseness and gradient", "bridge", "gradient"),
        ("the same, rotated answers", "bridge", "control"),
        ("bridge: the difference", "bridge", "bridge"),
        ("sparseness and the change", "bridge", "change"),
    ]
    return [
        *table(
            (f"{kind}: figure", *tasks),
            (
                (
                    label,
                    *(
                        _seeds([run.get(part, {}).get(name) for run in runs])
                        for runs in tasks.values()
                    ),
                )
                for label, part, name in rows
            ),
        ),
        *verdict(
            f"{kind}: concentrated beyond a random product",
            f"yes if the energy is above all draws by {EXCESS:g} in {TASKS} of three tasks; "
            "no if by less in all",
            concentration_answer({t: [_excess(run) for run in runs] for t, runs in tasks.items()}),
            "more seeds of the tasks that disagree",
        ),
        *verdict(
            f"{kind}: does the place matter",
            "yes if the largest entries keep more than both others of the same energy, intervals "
            f"above 0, in {TASKS} of three tasks; partly if more than random ones; no if in none",
            place_answer(
                _of(tasks, "keep_curve", "keep_top5_minus_random_energy"),
                _of(tasks, "keep_curve", "keep_top5_minus_scaled"),
            ),
            "more validation answers, and so few updates that the loss falls along the change",
        ),
        *verdict(
            f"{kind}: in sparsely active places",
            f"yes if the interval of the bridge is above 0 in {TASKS} of three tasks and the "
            f"permutation test passes at 1 %; no if it lies within {EQUIVALENT:g} of 0 in all",
            bridge_answer(
                _of(tasks, "bridge", "bridge"),
                {
                    task: [run["bridge"]["numbers"]["bridge/p"] for run in runs]
                    for task, runs in tasks.items()
                },
            ),
            "more gold answers behind each gradient; the layers are all there are",
        ),
    ]


def _over_runs(runs: list[Any], part: str, name: str) -> str:
    return _seeds([run.get(part, {}).get(name) for run in runs])


def _seeds(figures: list[Any], sign: str = "+") -> str:
    """Mean over seeds, and each seed's figure; `sign` is that of formats."""
    values = [figure[0] for figure in figures if figure and figure[0] is not None]
    if not values:
        return "-"
    listed = ", ".join(f"{value:{sign}.3f}" for value in values)
    return f"{fmean(values):{sign}.3f} ({listed})"


def _of(tasks: Mapping[str, list[Any]], part: str, name: str) -> dict[str, list[Any]]:
    """A figure of every seed, by task."""
    return {task: [run[part][name] for run in runs] for task, runs in tasks.items()}


def _excess(run: Any) -> float:
    figures = run["concentration"]
    return float(figures["energy_top5_frac"][0] - figures["energy_top5_null_lora_max"][0])


ADHERENCE = {
    "adherence_flipped": "flipped",
    "adherence_prior": "prior",
    "adherence_nonsense": "nonsense",
    "text_influence": "influence",
    "text_influence_base": "influence, base",
}
"""Columns of the table of adherence, by figure."""
FOLLOWED = "word_valence"
"""The task on which the base follows exchanged answers, so that there is something to lose."""


def adherence_lines(kept: Any) -> list[str]:
    """Whether slow updates wear off what prompts do."""
    arms: Arms = kept["arms"]
    keys = [key for run in arms["bare"].values() for key in run if key.startswith("1 ")]
    tasks = [key.partition(" ")[2] for key in dict.fromkeys(keys)]
    rows = [
        (
            f"{task}, {arm}, {when}",
            *(
                _seeds([run[f"{row} {task}"].get(n) for run in runs.values()], "")
                for n in ADHERENCE
            ),
        )
        for task in tasks
        for arm, runs in arms.items()
        for when, row in (("before", 0), ("after", 1))
    ]
    differences = {name: _difference(arms, f"1 {FOLLOWED}", name) for name in list(ADHERENCE)[:3:2]}
    flipped, nonsense = differences.values()
    return [
        "## Do slow updates wear off what a policy does with its prompt?",
        "",
        *prose(
            "**Design.** One task a run, a prompt chosen by the fast channel, then 16 updates by "
            "gold answers, under the bare problem (`bare`) or under the prompt (`with-text`); "
            "three seeds. *Flipped*: demonstrations whose answers are exchanged, each for the next "
            "in order; share of test problems answered as the demonstrations ask. *Prior*: "
            "answered by the true answer instead; with two answers it is what flipped is not. "
            "*Nonsense*: words that mean nothing. *Influence*: KL of the first completion token "
            "under the deployed prompt to that under the seed prompt, in nats, and that of the "
            f"base under the same prompts. The verdict is about {FOLLOWED}: its rows before "
            "training say that the base does what exchanged answers ask there, and never does on "
            "country_continent, so that nothing can fall there."
        ),
        *table(("task, arm", *ADHERENCE.values()), rows),
        *prose(
            f"After gold answers on {FOLLOWED}, `bare` less `with-text`, the same problems, over "
            f"seeds and problems: flipped {estimate(flipped)}, nonsense {estimate(nonsense)}."
        ),
        *verdict(
            "Does adherence fall more after gold answers under the bare problem than under prompts",
            "yes if the interval of flipped is below 0",
            fall_answer(flipped),
            "more seeds",
        ),
        *prose(
            f"Command: `{kept['command']}`, for country_continent with "
            '`"stages=[{task: country_continent, cycles: 2}]"` behind it, then '
            "`python -m benchmarks.questions adherence --runs FOLDER FOLDER`."
        ),
    ]


def _difference(arms: Arms, key: str, name: str) -> list[float | None]:
    """Of a figure between both arms, paired by seed and example."""
    outcomes = {
        arm: {int(seed): run[key]["outcomes"][name] for seed, run in runs.items()}
        for arm, runs in arms.items()
    }
    difference = over_seeds_and_examples(
        {
            seed: {
                key: {
                    example: score - outcomes["with-text"][seed][example]
                    for example, score in of_seed.items()
                }
            }
            for seed, of_seed in outcomes["bare"].items()
        }
    )
    return [difference.mean, difference.low, difference.high]


def arrangements_lines(kept: Any) -> list[str]:
    """What signals say of trained policies."""
    arms: Arms = kept["arms"]
    return [
        "## And of policies that were trained?",
        "",
        *prose(
            "One run of each arrangement of the channels on three tasks, then `fastslow signals`: "
            "the test problems under the deployed prompts and the final weights, verdicts over the "
            "three tasks together."
        ),
        *table(
            ("signal", *arms),
            (
                (
                    name,
                    *(
                        _verdict_words(run["verdicts"].get(name))
                        for runs in arms.values()
                        for run in list(runs.values())[:1]
                    ),
                )
                for name in (PRIMARY, *FREE)
            ),
        ),
        f"Commands: `{kept['command']}`, `fastslow signals` on each of its runs, then",
        "`python -m benchmarks.questions arrangements`.",
        "",
    ]


def _verdict_words(entry: Any) -> str:
    return "-" if entry is None else str(entry["reason"])


def orders_lines() -> list[str]:
    """Final scores under each order of demonstrations, from the kept ablation."""
    if not ORDERS.is_file():
        return []
    scores: dict[str, dict[int, dict[str, Mapping[str, float]]]] = {}
    for record in map(json.loads, ORDERS.read_text().splitlines()[1:]):
        last = len(record["scores"]) - 1
        trained = set(record["stages"])
        final = {t: cell for row, t, cell in record["cells"] if row == last and t in trained}
        scores.setdefault(record["arm"], {})[record["seed"]] = final
    rows, decided = [], []
    for arm, by_seed in scores.items():
        level = over_seeds_and_examples(by_seed)
        cells = [arm, estimate([level.mean, level.low, level.high], sign="")]
        if arm == "random":
            rows.append([*cells, ""])
            continue
        difference = over_seeds_and_examples(
            {
                seed: {
                    task: {
                        example: score - scores["random"][seed][task][example]
                        for example, score in of_task.items()
                    }
                    for task, of_task in tasks.items()
                }
                for seed, tasks in by_seed.items()
            }
        )
        limits = difference.mean, difference.low, difference.high
        is_decided = limits[1] is not None and (limits[1] > 0 or (limits[2] or 0.0) < 0)
        decided += [arm] if is_decided else []
        detectable = (
            "" if difference.detectable is None else f"; detectable {difference.detectable:.2f}"
        )
        rows.append([*cells, f"{estimate(limits)}{detectable}"])
    answer = f"yes: {', '.join(decided)}" if decided else "not decidable"
    return [
        "## Does the order of demonstrations matter, and is sparsity a good order?",
        "",
        *prose(
            "**Design.** Fast channel alone on three tasks, six demonstrations a prompt, the same "
            "320 rollouts of scoring a stage under every order, three seeds. `easy-first` pays for "
            "pass rates with rollouts; the signal is `l0`, SG-ICL's own. Mean final score, and the "
            "difference to `random` on the same seeds and problems, with the smallest difference "
            "that would be found with 80 % power. A prompt that is bootstrapped shows answers the "
            "policy got right, which all have one pass rate: `easy-first` leaves those as they "
            "were drawn."
        ),
        *table(("order", "score", "less random"), rows),
        *verdict(
            "Does an order differ from random",
            "yes for one whose interval leaves out 0",
            answer,
            "seeds, of which the table says how small a difference three can show",
        ),
        "Command: `fastslow ablate configs/ablations/orders.yaml`.",
        "",
    ]
