"""What passes do on a card alone, on the CPU: large pieces, and gradients in one order."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from benchmarks.card.section import build, gradient, loss_of, rows_of
from fastslow.policy.engine import block_attention, sizes
from fastslow.policy.engine.layouts import Layout, layout_costs, score_completions
from fastslow.policy.engine.sharing import why_not_shared
from fastslow.policy.engine.states import pack_inputs
from fastslow.policy.engine.trie import ancestor_mask, merge
from fastslow.policy.placement import adds_in_any_order, in_one_order


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Sizes and order as on a card; gives whether torch only warned, at both ways of attention."""
    warned: list[bool] = []
    way_back = torch.autograd.grad

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **options: Any) -> Any:
            if torch.is_grad_enabled() or work is way_back:
                warned.append(torch.is_deterministic_algorithms_warn_only_enabled())
            return work(*arguments, **options)

        return noting

    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, attention.__name__, noted(attention))
    monkeypatch.setattr(block_attention, attention.__name__, noted(attention))
    monkeypatch.setattr(torch.autograd, "grad", noted(way_back))
    monkeypatch.setattr(sizes, "CPU", replace(sizes.CARD, head_nodes=5))
    monkeypatch.setattr(block_attention, "adds_in_any_order", lambda device: True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield warned
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_every_layout_gives_on_a_card_what_it_gives_on_a_cpu(
    as_on_a_card: list[bool], monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    model = build("tiny", "float32", "cpu")  # two heads share a key head
    assert why_not_shared(model) is None
    del as_on_a_card[:]
    rows = rows_of((37, 3, 4, 13, 7), 1024, prompts=2, ragged=True, seed=3)
    found = _pass(model, rows, layout)
    assert len(as_on_a_card) >= 2 * model.config.num_hidden_layers  # both ways of every layer
    assert not any(as_on_a_card)
    assert torch.is_deterministic_algorithms_warn_only_enabled()  # for everything else as before
    monkeypatch.undo()
    for ours, expected in zip(found, _pass(model, rows, layout), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def _pass(model: Any, rows: Any, layout: Layout) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    prompts, completions = rows
    logprobs = score_completions(model, prompts, completions, layout=layout).logprobs
    torch.autograd.backward(loss_of(logprobs))
    return logprobs.detach(), gradient(model)


@pytest.mark.usefixtures("as_on_a_card")
def test_a_card_is_given_fewer_and_larger_blocks() -> None:
    prompts, completions = rows_of((200, 4, 4, 30, 20), 1024)
    model = build("tiny", "float32", "cpu")
    [(block, mask)] = block_attention.masked(
        _blocks(prompts, completions, sizes.CARD.block_tokens), model
    )
    assert mask.shape == block.mask.shape  # one mask for all heads
    assert len(_blocks(prompts, completions, 192)) > 1


def _blocks(prompts: Any, completions: Any, limit: int) -> Any:
    return pack_inputs(prompts, completions, limit).blocks


def test_one_more_pass_counts_for_more_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("tiny", "float32", "cpu")
    rows = rows_of((60, 3, 4, 13, 7), 1024)
    before = layout_costs(model, *rows)
    monkeypatch.setattr(sizes, "CPU", replace(sizes.CPU, pass_tokens=sizes.CPU.pass_tokens + 100))
    after = layout_costs(model, *rows)
    assert {name: round(after[name] - before[name]) for name in before} == {
        "padded": 100,
        "packed": 100,
        "tree": 300,
    }


def test_torch_goes_back_to_warning_after_a_failure() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(ZeroDivisionError):
            _fail_in_one_order()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert adds_in_any_order(torch.device("cuda:1"))
        assert not adds_in_any_order(torch.device("cpu"))
    finally:
        torch.use_deterministic_algorithms(False)
    with in_one_order():  # where nobody asked for the same bits, nothing is asked of torch
        assert not torch.are_deterministic_algorithms_enabled()
    assert not adds_in_any_order(torch.device("cuda:1"))


def _fail_in_one_order() -> None:
    with in_one_order():
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        raise ZeroDivisionError


def test_a_node_attends_to_itself_and_to_what_is_above_it() -> None:
    trie = merge([(1, 2, 3), (1, 2, 4, 5), (1, 6), (7, 2), (7, 2, 3)])
    for seed in range(3):  # any order in which parents come first
        order = _shuffled(trie.parents, seed)
        place = {node: at for at, node in enumerate(order)}
        parents = [place.get(trie.parents[node], -1) for node in order]
        expected = torch.zeros(len(parents), len(parents), dtype=torch.bool)
        for row, node in enumerate(order):
            while node >= 0:
                expected[row, place[node]] = True
                node = trie.parents[node]
        assert torch.equal(ancestor_mask(parents), expected)


def _shuffled(parents: tuple[int, ...], seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < len(parents):
        open_nodes = [
            node
            for node, parent in enumerate(parents)
            if node not in order and (parent < 0 or parent in order)
        ]
        order.append(open_nodes[int(torch.randint(len(open_nodes), (), generator=generator))])
    return order
