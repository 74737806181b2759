"""Mazes of two families whose difficulty and familiarity are known apart."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt

from fastslow.core.errors import TaskError
from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import exact_match
from fastslow.task.splits import Splits, content_id

Room: TypeAlias = tuple[int, int]
"""Row and column, from 0 at the top left."""
Doors: TypeAlias = Mapping[Room, Mapping[str, Room]]
"""Every room but pillars: the steps out of it in the order of the alphabet, and where they lead."""
Family: TypeAlias = Literal["wilson", "pillars"]
MOVES: dict[str, Room] = {"D": (1, 0), "L": (0, -1), "R": (0, 1), "U": (-1, 0)}
"""Rows and columns of each step, in the order of the alphabet."""
BACK = {"D": "U", "L": "R", "R": "L", "U": "D"}
PILLAR_FRAC = 0.2
"""Share of the rooms of an open hall that are pillars. Source: ours."""
ENDS = 8
"""Draws of start and goal in one layout, in search of a maze that is as hard as its twin."""
MOST_TRIES = 400
"""Draws in search of a maze that is new, or as hard as its twin."""


class MazeConfig(TaskConfig):
    """Parameters of `maze`. The size knob is `sizes`."""

    sizes: tuple[int, ...] = Field((3, 4, 5), min_length=1)
    """Rooms along a side, from 3 to 20; every size is as frequent as the others."""
    family: Literal["both", "wilson", "pillars"] = "both"
    """Corridors by Wilson's algorithm, open halls with pillars, or pairs of both, equally hard."""
    train: PositiveInt = 256
    """Examples in the train split."""
    validation: PositiveInt = 64
    """Examples in the validation split."""
    test: PositiveInt = 128
    """Examples in the test split."""
    seed: NonNegativeInt = 0
    """Which mazes are drawn."""
    max_tokens: PositiveInt = 32
    """Limit of one completion, in tokens; a letter may take one."""


@dataclass(frozen=True, slots=True)
class Maze:
    """A maze, its shortest way and how hard that is to find."""

    family: Family
    size: int
    """Rooms along a side."""
    doors: Doors
    start: Room
    goal: Room
    expansions: int
    """Of A*: the difficulty, see `expansions`."""

    @property
    def path(self) -> str:
        """The shortest way as letters of UDLR; of several the first in the alphabet."""
        return shortest_path(self.doors, self.start, self.goal)

    @property
    def text(self) -> str:
        """The maze as rows of characters: S, G, `.` where one can go and `#` where not."""
        rows = [["#"] * (2 * self.size + 1) for _ in range(2 * self.size + 1)]
        for (row, column), exits in self.doors.items():
            rows[2 * row + 1][2 * column + 1] = "."
            for letter in exits:
                down, right = MOVES[letter]
                rows[2 * row + 1 + down][2 * column + 1 + right] = "."
        for row in range(2, 2 * self.size, 2):  # a corner with four open sides is open
            for column in range(2, 2 * self.size, 2):
                sides = [rows[row + down][column + right] for down, right in MOVES.values()]
                if "#" not in sides:
                    rows[row][column] = "."
        for mark, (row, column) in (("S", self.start), ("G", self.goal)):
            rows[2 * row + 1][2 * column + 1] = mark
        return "\n".join(map("".join, rows))


@task(name="maze", version=1, source="made here from a seed; after arXiv 2509.07339")
def maze(config: MazeConfig) -> Task:
    """Shortest way through a maze, as letters. Score in [0, 1], higher is better.

    No partial credit. In pairs of both families size and number of A* expansions are equal, so that
    neither tells which family a maze is of.

    Source: mazes by Wilson's algorithm and A* as the measure of difficulty after arXiv 2509.07339;
    open halls as the unfamiliar family, pairs, wording and sizes are ours.
    """
    families: Sequence[Family] = ("wilson", "pillars")
    if config.family != "both":
        families = (config.family,)
    stream = mazes(config.seed, config.sizes, families)

    def examples(split: str, count: int) -> tuple[Example, ...]:
        drawn = [Example(content_id(m.text), m.text, m.path) for m in islice(stream, count)]
        if len(drawn) < count:
            raise TaskError(
                f"task maze: only {len(drawn)} different mazes for the {split} split, got "
                f"{split} = {count}. Raise sizes, or ask for fewer examples."
            )
        return tuple(drawn)

    test, validation = examples("test", config.test), examples("validation", config.validation)
    return Task(
        *Splits(train=examples("train", config.train), validation=validation, test=test),
        instruction=(
            "Find the shortest way from S to G. Rooms are two characters apart; `#` is a wall. "
            "Give one letter for each step to the next room, U, D, L or R, without spaces. Of "
            "several shortest ways give the first in the alphabet."
        ),
        grade=exact_match,
        max_tokens=config.max_tokens,
    )


def mazes(seed: int, sizes: Sequence[int], families: Sequence[Family]) -> Iterator[Maze]:
    """Different mazes without end, as many of each size; ends where no new one is met.

    With two families they come in pairs of one size and one number of expansions.

    Raises:
        TaskError: A size is below 3 or above 20.
    """
    if not all(3 <= size <= 20 for size in sizes):
        raise TaskError(f"task maze: sizes are from 3 to 20 rooms, got {list(sizes)}.")
    stream, taken = named_random(seed, "maze"), set[str]()
    number = 0
    while True:
        size = sizes[number % len(sizes)]
        for _ in range(MOST_TRIES):
            pair = _equally_hard(stream, size, families)
            texts = {member.text for member in pair}
            if len(texts) == len(families) and not texts & taken:
                break
        else:
            return
        taken |= texts
        yield from pair
        number += 1


def _equally_hard(stream: Random, size: int, families: Sequence[Family]) -> list[Maze]:
    """A maze of each family with the same expansions; none where the first is too hard to match."""
    first, *rest = families
    pair = [next(_draws(stream, size, first))]
    for family in rest:
        candidates = islice(_draws(stream, size, family), MOST_TRIES)
        twin = next((maze for maze in candidates if maze.expansions == pair[0].expansions), None)
        if twin is None:
            return []
        pair.append(twin)
    return pair


def _draws(stream: Random, size: int, family: Family) -> Iterator[Maze]:
    """Mazes without end, of each layout several with other ends."""
    rooms = [(row, column) for row in range(size) for column in range(size)]
    while True:
        if family == "wilson":
            doors = _corridors(stream, rooms)
        else:
            pillars = stream.sample(rooms, round(PILLAR_FRAC * len(rooms)))
            doors = _joined(set(rooms).difference(pillars))
        for _ in range(ENDS):
            start, goal = stream.sample(sorted(doors), 2)
            difficulty = expansions(doors, start, goal)
            if difficulty is not None:
                yield Maze(family, size, doors, start, goal, difficulty)


def _joined(rooms: AbstractSet[Room]) -> Doors:
    """All neighbours among some rooms joined."""
    exits = {room: {step: _beyond(room, step) for step in MOVES} for room in sorted(rooms)}
    return {r: {step: o for step, o in e.items() if o in rooms} for r, e in exits.items()}


def _beyond(room: Room, step: str) -> Room:
    return room[0] + MOVES[step][0], room[1] + MOVES[step][1]


def _corridors(stream: Random, rooms: Sequence[Room]) -> Doors:
    """A uniformly drawn spanning tree, by loop-erased random walks (Wilson 1996)."""
    hall, tree = _joined(set(rooms)), {stream.choice(rooms)}
    exits: dict[Room, set[str]] = {room: set() for room in rooms}
    for root in rooms:
        last_step: dict[Room, str] = {}
        room = root
        while room not in tree:  # the last step out of a room counts: loops are erased
            last_step[room] = stream.choice(list(hall[room]))
            room = hall[room][last_step[room]]
        room = root
        while room not in tree:
            tree.add(room)
            step = last_step[room]
            exits[room].add(step)
            room = hall[room][step]
            exits[room].add(BACK[step])
    return {room: {step: hall[room][step] for step in sorted(exits[room])} for room in rooms}


def shortest_path(doors: Doors, start: Room, goal: Room) -> str:
    """See `Maze.path`; the goal can be reached."""
    distances, queue = {goal: 0}, [goal]
    for room in queue:
        for other in doors[room].values():
            if other not in distances:
                distances[other] = distances[room] + 1
                queue.append(other)
    room, letters = start, ""
    while room != goal:
        step = next(s for s, o in doors[room].items() if distances[o] == distances[room] - 1)
        room, letters = doors[room][step], letters + step
    return letters


def expansions(doors: Doors, start: Room, goal: Room) -> int | None:
    """Rooms that A* looks around in before it reaches the goal, >= 1; None if there is no way.

    By Manhattan distance, ties in the order of insertion.

    Source: Hart, Nilsson and Raphael 1968.
    """
    steps, closed, inserted = {start: 0}, set[Room](), 0
    queue = [(0, inserted, start)]
    while queue:
        _, _, room = heapq.heappop(queue)
        if room == goal:
            return len(closed)
        if room in closed:
            continue
        closed.add(room)
        for other in doors[room].values():
            if steps[room] + 1 < steps.get(other, len(doors)):
                steps[other] = steps[room] + 1
                inserted += 1
                estimate = steps[other] + abs(other[0] - goal[0]) + abs(other[1] - goal[1])
                heapq.heappush(queue, (estimate, inserted, other))
    return None
