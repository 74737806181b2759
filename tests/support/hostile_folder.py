"""A run folder in which everything that comes from outside attacks whoever shows it."""

import json
from pathlib import Path

from fastslow.core.prompts import Candidate, Demonstration, Lineage, PromptProgram
from fastslow.records.events import CycleEvent, DriftEvent, PopulationEvent, TextEvent
from fastslow.records.run_folder import RunDir
from tests.support.run_folder import write_run

TASK = "<img src=x onerror=window.owned=1>$x^2$"
"""What takes the place of the task `alpha`."""
ATTACKS = (
    "<script>window.owned=1;document.title='owned'</script>",
    '"><svg onload="window.owned=1"><a href="javascript:window.owned=1">x</a>',
    "</pre></style></title><script>window.owned=1</script><style>body{display:none}</style>",
    "\x1b[31mred\x1b[0m \x1b]0;owned\x07",
    "abc \u202ednammoc\u202c \u2066isolated\u2069 zero\u200bwidth \x00nul",
    "{{ 7 * 7 }} {% raw %} ${x} \\u003cscript\\u003e <!-- --> ]]>",
)


def write_hostile_run(runs_dir: Path) -> Path:
    run = write_run(runs_dir)
    text = "\n".join(ATTACKS)
    parent = PromptProgram(ATTACKS[0], (), Lineage("seed"))
    program = PromptProgram(
        text, (Demonstration(text, text),), Lineage("demos", parent.text_hash, 2, 0, ATTACKS[4])
    )
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            PopulationEvent(2, 0, "gamma", (Candidate(program, {"a": 1.0}), Candidate(parent, {}))),
            TextEvent(2, "gamma", "live", program, None, 0),
            DriftEvent(3, "gamma", "kl_fst", None, text, 0, program.text_hash),
            CycleEvent(2, 0, {"fast": 1}, {"fast": 0.0}, {"fast/best_score": 0.5}, (text,)),
        )
    for name in ("run.json", "scores.jsonl", "events.jsonl"):
        path = run / name
        path.write_text(path.read_text().replace('"alpha"', json.dumps(TASK)))
    scores = run / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["completion"] = row["reason"] = ATTACKS[number % len(ATTACKS)]
        row["example"] += ATTACKS[0]
    scores.write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = json.loads((run / "run.json").read_text())
    card["run"], card["command"] = "</title>" + ATTACKS[0], ["fastslow", "train", text]
    (run / "run.json").write_text(json.dumps(card))
    return run
