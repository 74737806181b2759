"""Figures of finished ablations: what their measures recorded, by arm and seed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.keeping import ROOT
from benchmarks.questions import design
from fastslow.measure.model.adherence import SCORES
from fastslow.policy.signals import FREE, PRIMARY
from fastslow.records.events import FiguresEvent
from fastslow.records.jsonl import read_events
from fastslow.records.validity_file import FOLDER, VALIDITY_FILE

RUNS = {name: ROOT / "runs" / name for name in ("changes", "adherence", "arrangements")}
"""Where each ablation's runs lie unless told otherwise."""


def keep(name: str, folders: Sequence[Path]) -> None:
    """Keep the figures of an ablation's runs, which must all have ended.

    Runs of one arm and seed that lie in several folders, on other tasks, are kept together.
    """
    arms: dict[str, dict[str, Any]] = {}
    for card in sorted(card for folder in folders for card in folder.glob("*/run.json")):
        data = json.loads(card.read_text())
        if data["state"] != "finished":
            raise SystemExit(f"{card.parent}: {data['state']}. Finish the ablation first.")
        arm, _, seed = data["name"].rpartition("-s")
        arms.setdefault(arm, {}).setdefault(seed, {}).update(READERS[name](card.parent))
    command = f"fastslow ablate configs/ablations/{name}.yaml"
    design.write(name, {"model": design.MODEL, "command": command, "arms": arms})


def figures(run: Path, *kinds: str) -> Iterator[tuple[FiguresEvent, dict[str, Any]]]:
    """Records of some kinds of figures, each with its figures as [value, low, high]."""
    for event in read_events(run / "events.jsonl"):
        if isinstance(event, FiguresEvent) and event.kind in kinds:
            limits = {
                m.name: [event.numbers.get(f"{m.name}/{e}") for e in ENDS] for m in event.figures
            }
            yield event, {m.name: _rounded([m.value, *limits[m.name]]) for m in event.figures}


ENDS = ("low", "high")


def _rounded(values: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values]


def _changes(run: Path) -> dict[str, Any]:
    """The last row's concentration, keep curve and bridge."""
    kept: dict[str, Any] = {}
    for event, values in figures(run, "concentration", "keep_curve", "bridge"):
        if event.row:
            tests = {n: v for n, v in event.numbers.items() if n.endswith(("/p", "/energy"))}
            kept[event.kind] = {**values, "numbers": tests}
    return kept


def _adherence(run: Path) -> dict[str, Any]:
    """Every row and task, with each example's outcomes so that arms can be held in pairs."""
    kept: dict[str, Any] = {}
    for event, values in figures(run, "adherence"):
        outcomes = {
            name: {
                key.removeprefix(f"{name}/of/"): value
                for key, value in event.numbers.items()
                if key.startswith(f"{name}/of/")
            }
            for name in SCORES
        }
        kept[f"{event.row} {event.of}"] = {**values, "outcomes": outcomes}
    return kept


def _arrangements(run: Path) -> dict[str, Any]:
    """What `fastslow signals` said of the run, and its adherence without single examples."""
    report = json.loads((run / FOLDER / VALIDITY_FILE).read_text())
    names = (PRIMARY, *FREE)
    verdicts = {name: report["verdicts"][name] for name in names if name in report["verdicts"]}
    adherence = {f"{event.row} {event.of}": values for event, values in figures(run, "adherence")}
    return {"verdicts": verdicts, "adherence": adherence}


READERS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "changes": _changes,
    "adherence": _adherence,
    "arrangements": _arrangements,
}
