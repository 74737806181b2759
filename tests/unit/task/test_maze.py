"""Mazes: A* and ways by hand, and two families that size and difficulty do not tell apart."""

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest

from fastslow.core.errors import TaskError
from tests.support.mazes import maze_module

if TYPE_CHECKING:
    from tasks.maze.task import Doors, Maze, Room

BACK, MOVES = maze_module.BACK, maze_module.MOVES
expansions, mazes, shortest_path = (
    maze_module.expansions,
    maze_module.mazes,
    maze_module.shortest_path,
)
Exits: TypeAlias = "dict[Room, dict[str, Room]]"


def maze_of(*lines: str) -> "Doors":
    """The doors of a maze that is written as the task writes it."""
    doors: Exits = {}
    for row in range(len(lines) // 2):
        for column in range(len(lines) // 2):
            exits = {
                step: (row + down, column + right)
                for step, (down, right) in MOVES.items()
                if lines[2 * row + 1 + down][2 * column + 1 + right] != "#"
            }
            if exits:
                doors[row, column] = exits
    return doors


RING = (
    "#######",
    "#S....#",
    "#.###.#",
    "#.#...#",
    "#.#####",
    "#....G#",
    "#######",
)
"""Two ways lead down from S, one of them into a dead end."""


def test_a_star_and_the_way_are_those_found_by_hand() -> None:
    doors = maze_of(*RING)
    # S, then in turn down the left and along the top, at equal estimates: (0, 0), (1, 0), (0, 1),
    # (2, 0), (0, 2), (2, 1), (1, 2); then the goal
    assert expansions(doors, (0, 0), (2, 2)) == 7
    assert shortest_path(doors, (0, 0), (2, 2)) == "DDRR"
    assert maze_module.Maze("wilson", 3, doors, (0, 0), (2, 2), 7).text == "\n".join(RING)
    assert expansions(doors, (0, 0), (0, 1)) == 1  # down comes first, at a worse estimate
    assert shortest_path(doors, (1, 1), (2, 2)) == "RULLDDRR"


def test_of_equally_short_ways_the_first_in_the_alphabet_is_the_answer() -> None:
    hall = maze_of("#####", "#...#", "#...#", "#...#", "#####")
    assert shortest_path(hall, (0, 0), (1, 1)) == "DR"
    assert shortest_path(hall, (1, 1), (0, 0)) == "LU"
    assert expansions(hall, (0, 0), (1, 1)) == 3


def test_a_goal_that_cannot_be_reached_has_no_difficulty() -> None:
    apart = maze_of("#######", "#.....#", "#######", "#######", "#######", "#.....#", "#######")
    assert expansions(apart, (0, 0), (2, 2)) is None


@pytest.fixture(scope="module")
def pairs() -> "list[Maze]":
    return list(islice(mazes(3, (3, 4, 5), ("wilson", "pillars")), 300))


def test_every_answer_leads_from_start_to_goal_by_no_longer_way_than_there_is(
    pairs: "list[Maze]",
) -> None:
    for maze in pairs:
        room = maze.start
        for step in maze.path:
            room = maze.doors[room][step]
        assert room == maze.goal
        assert len(maze.path) >= sum(abs(a - b) for a, b in zip(maze.start, maze.goal, strict=True))
        assert len(maze.path) <= maze.expansions + 1
        joined = {inner: exits for inner, exits in maze.doors.items() if exits}
        assert maze_of(*maze.text.split("\n")) == joined
        for inner, exits in maze.doors.items():
            assert all(maze.doors[other][BACK[step]] == inner for step, other in exits.items())


def test_a_corridor_maze_is_a_tree_over_all_rooms(pairs: "list[Maze]") -> None:
    for maze in (m for m in pairs if m.family == "wilson"):
        assert len(maze.doors) == maze.size**2
        assert sum(map(len, maze.doors.values())) == 2 * (maze.size**2 - 1)


def test_sizes_and_difficulties_are_distributed_equally_in_both_families(
    pairs: "list[Maze]",
) -> None:
    counts = [
        Counter((m.size, m.expansions) for m in pairs if m.family == family)
        for family in ("wilson", "pillars")
    ]
    assert counts[0] == counts[1]
    assert len({m.text for m in pairs}) == len(pairs)
    families = [float(m.family == "pillars") for m in pairs]
    correlation = np.corrcoef([m.expansions for m in pairs], families)[0, 1]
    assert abs(correlation) < 0.1
    assert len({m.expansions for m in pairs}) > 10


def test_the_seed_alone_decides() -> None:
    draws = [list(islice(mazes(seed, (4,), ("pillars",)), 5)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_sizes_that_cannot_be_are_refused_and_small_ones_run_out() -> None:
    with pytest.raises(TaskError, match="from 3 to 20 rooms, got"):
        next(mazes(0, (2,), ("wilson",)))
