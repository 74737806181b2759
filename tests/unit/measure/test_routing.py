"""Routes by hand: the highest value, the nearest direction, and the first of equals."""

import numpy as np

from fastslow.measure.scores.routing import best_routes, nearest_means


def test_each_input_goes_to_the_task_with_the_highest_value() -> None:
    values = {"a": [-1.0, -3.0, 0.0], "b": [-2.0, -2.0, -0.5]}
    assert best_routes(values) == ["a", "b", "a"]


def test_of_equal_values_the_first_task_is_taken_whatever_its_name() -> None:
    assert best_routes({"b": [1.0, 0.0], "a": [1.0, 0.5], "c": [1.0, 0.5]}) == ["b", "a"]


def test_the_nearest_mean_is_that_of_the_smallest_angle_not_the_largest_product() -> None:
    means = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 2.0])}
    # products with (2, 1.9): 2 with a, 3.8 with b; cosines: 0.725 and 0.689
    states = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 1.9], [20.0, 19.0]])
    assert nearest_means(states, means) == ["a", "b", "a", "a"]


def test_equal_means_send_everything_to_the_first_task() -> None:
    mean = np.random.default_rng(0).normal(size=577)
    states = np.random.default_rng(1).normal(size=(50, 577))
    tasks = {"z": mean, "y": mean.copy(), "x": mean[::1].copy()}
    assert nearest_means(states, tasks) == ["z"] * 50
