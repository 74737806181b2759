"""The parts of docs/results.md about faults, from what `kill_resume` and `hostile` wrote."""

import json
from collections import Counter
from typing import Any

from benchmarks.keeping import REFERENCE

KILL_RESUME, HOSTILE = REFERENCE / "kill_resume.json", REFERENCE / "hostile.json"
"""What the two benchmarks wrote with `--json`."""
REFUSALS = ("exit 1", "exit 2", "exit 3")
"""Exit codes of a command that gave a typed error, or whose gate says no."""


def endurance_lines() -> list[str]:
    """Both benchmarks, as far as there are figures of them."""
    lines = kill_lines() if KILL_RESUME.is_file() else []
    return lines + (hostile_lines() if HOSTILE.is_file() else [])


def kill_lines() -> list[str]:
    """How runs ended that were killed and resumed."""
    found = json.loads(KILL_RESUME.read_text())
    points = Counter(kill["point"] or "none yet" for kill in found["each"])
    where = ", ".join(f"{point}: {count}" for point, count in sorted(points.items()))
    return [
        "## Killed at random moments, and resumed",
        "",
        f"Made by `{found['command']}`: {found['identical']} of {found['kills']} runs ended as an "
        "undisturbed one, with the same",
        "records, matrix, adapter, optimizer, random states and MLflow points; "
        f"kills that came too late and were drawn again: {found['too_late']}.",
        f"Kills by the newest resume point (stage-cycle, from 0) they found: {where}.",
        *command_lines(found.get("commands", {})),
        "",
    ]


def command_lines(commands: dict[str, Any]) -> list[str]:
    """How other commands ended that were killed and given again."""
    counts = [f"{name} {kind['identical']}/{kind['kills']}" for name, kind in commands.items()]
    if not counts:
        return []
    return [
        "Commands that were killed and given again, and left what an undisturbed one leaves, byte "
        f"by byte but for times: {', '.join(counts)}."
    ]


def hostile_lines() -> list[str]:
    """What became of hostile input."""
    found = json.loads(HOSTILE.read_text())
    outcomes: dict[str, dict[str, int]] = found["outcomes"]
    lines = [
        "## Hostile input",
        "",
        f"Made by `{found['command']}`, seed {found['seed']}, in {found['seconds'] / 60:.0f} "
        f"minutes. {_bad(found)}",
        "",
        "| kind of input | cases | accepted | typed errors, and exit codes of commands |",
        "| --- | --- | --- | --- |",
    ]
    for name, counts in outcomes.items():
        errors = ", ".join(
            f"{kind} {count}"
            for kind, count in counts.items()
            if kind.endswith("Error") or kind in REFUSALS
        )
        cases, accepted = sum(counts.values()), counts.get("accepted", 0)
        lines.append(f"| {name} | {cases} | {accepted} | {errors or '-'} |")
    return [*lines, ""]


def _bad(found: dict[str, Any]) -> str:
    counts = [f"{kind} {count}" for kind, count in found["bad"].items()]
    return f"Of what must not be: {', '.join(counts)}; files changed outside: " + (
        f"{found['changed_outside']}."
    )
