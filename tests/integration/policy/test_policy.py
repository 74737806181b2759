"""Engine, trie, renderer and adapter over real models of several families, tiny ones."""

import random
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.core.errors import CheckpointError, ModelError
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import Sampling, TokenIds
from fastslow.policy.adapter.lora import adapter_fingerprint, load_adapter, save_adapter
from fastslow.policy.adapter.parts import FROZEN, TRAINED, concatenated, freeze_trained
from fastslow.policy.engine import onednn, torch_engine
from fastslow.policy.engine.layouts import Layout, cheapest, score_completions
from fastslow.policy.engine.onednn import EXACT, allow_onednn
from fastslow.policy.engine.prefixes import shared_prefixes
from fastslow.policy.engine.torch_engine import TorchEngine
from fastslow.policy.engine.trie import merge, pack
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.policy.render import Renderer, chat_messages
from tests.support.tiny import tiny_model, tiny_tokenizer

SHORT = PromptProgram("Answer.", (Demonstration("one", "1"), Demonstration("two", "2")))
OTHER = PromptProgram("Say a number, in full.", (Demonstration("six", "6"),))


def rows_of(policy: Policy) -> tuple[list[TokenIds], list[TokenIds]]:
    """Two texts, three questions, two completions each of ragged length."""
    generator = random.Random(5)
    prompts, completions = [], []
    for program in (SHORT, OTHER):
        for question in ("three", "four", "a longer question than the others"):
            for length in (1, 4):
                prompts.append(policy.renderer.prompt_ids(program, question))
                completions.append(tuple(generator.randrange(200) for _ in range(length)))
    return prompts, completions


def padded_logprobs(model: Any, prompts: list[TokenIds], completions: list[TokenIds]) -> Any:
    """The plain way: one row at a time, nothing shared."""
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
        predicted = torch.log_softmax(logits[len(prompt) - 1 : -1].float(), -1)
        rows.append(predicted[torch.arange(len(completion)), torch.tensor(completion)])
    return rows


def test_an_answer_ends_with_the_token_the_template_ends_a_turn_with() -> None:
    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    tokenizer.eos_token = "<|endoftext|>"
    renderer = Renderer(tokenizer)
    assert renderer.stop_id == vocabulary["<|im_end|>"]
    assert renderer.stop_id in TorchEngine(tiny_model(), renderer).stop_ids
    shown = renderer.prompt_ids(PromptProgram("", (Demonstration("one", "1"),)), "two")
    asked = renderer.prompt_ids(PromptProgram(""), "one")
    taught = asked + renderer.answer_ids("1")
    assert shown[: len(taught)] == taught

    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '\\n' }}{% endfor %}"
    assert Renderer(tokenizer).stop_id == vocabulary["<|endoftext|>"]
    tokenizer.chat_template = None
    assert Renderer(tokenizer).stop_id == vocabulary["<|endoftext|>"]


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma"])
def test_every_layout_gives_the_loss_and_gradient_of_single_rows(
    family: str, layout: Layout
) -> None:
    policy = with_adapter(
        Policy(tiny_model(family), tiny_tokenizer()),
        rank=4,
        alpha=8,
        target_modules="all-linear",
        seed=0,
    )
    prompts, completions = rows_of(policy)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]

    scored = score_completions(policy.model, prompts, completions, layout=layout)
    torch.autograd.backward(scored.logprobs.sum())
    shared = [p.grad.clone() for p in parameters if p.grad is not None]
    policy.model.zero_grad()
    single = padded_logprobs(policy.model, prompts, completions)
    torch.autograd.backward(torch.stack([row.sum() for row in single]).sum())
    plain = [p.grad.clone() for p in parameters if p.grad is not None]

    for row, expected in zip(scored.logprobs, single, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=0)
        assert not row[len(expected) :].any()
    assert len(shared) == len(plain) == len(parameters)
    error = torch.cat([(a - b).flatten() for a, b in zip(shared, plain, strict=True)]).norm()
    assert error / torch.cat([b.flatten() for b in plain]).norm() < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 2),
            st.lists(st.integers(0, 5), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=8,
    ),
    layout=st.sampled_from(["packed", "tree"]),
)
def test_random_tries_score_as_the_padded_batch_does(
    rows: list[tuple[int, int, list[int]]], layout: Layout
) -> None:
    texts = [tuple(range(20)), tuple(range(30, 45))]
    questions: list[TokenIds] = [(7,), (7, 8, 9), (50, 51)]
    model = shared_tiny_model()
    prompts = [texts[t] + questions[q] for t, q, _ in rows]
    completions = [tuple(done) for _, _, done in rows]
    with torch.no_grad():
        shared = score_completions(model, prompts, completions, layout=layout)
        padded = score_completions(model, prompts, completions, layout="padded")
    torch.testing.assert_close(shared.logprobs, padded.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared.entropies, padded.entropies, atol=1e-4, rtol=0)


@cache
def shared_tiny_model() -> Any:
    return tiny_model("llama").requires_grad_(False)


def gradient(policy: Policy, rows: tuple[list[TokenIds], list[TokenIds]], layout: Layout) -> Any:
    """Of the adapter, for the sum of all log-probabilities."""
    policy.model.zero_grad()
    torch.autograd.backward(score_completions(policy.model, *rows, layout=layout).logprobs.sum())
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def test_layouts_agree_in_bfloat16_and_with_gradient_checkpointing(moved: Policy) -> None:
    rows = rows_of(moved)
    moved.model.train()
    plain = gradient(moved, rows, "padded")
    moved.model.gradient_checkpointing_enable()
    assert cheapest(moved.model, *rows) in ("packed", "padded")
    checkpointed = gradient(moved, rows, "packed")
    moved.model.gradient_checkpointing_disable()
    assert (checkpointed - plain).norm() / plain.norm() < 1e-5

    expected = score_completions(moved.model, *rows, layout="padded").logprobs
    half = moved.model.to(torch.bfloat16)
    for layout in get_args(Layout):
        scored = score_completions(half, *rows, layout=layout)
        torch.testing.assert_close(scored.logprobs, expected, atol=0.05, rtol=0)


def test_temperature_divides_the_logits_in_every_layout(moved: Policy) -> None:
    rows = rows_of(moved)
    single = moved.model(input_ids=torch.tensor([rows[0][0] + rows[1][0]])).logits[0]
    expected = torch.log_softmax(single[len(rows[0][0]) - 1] / 0.7, -1)[rows[1][0][0]]
    for layout in get_args(Layout):
        scored = score_completions(moved.model, *rows, temperature=0.7, layout=layout)
        torch.testing.assert_close(scored.logprobs[0, 0], expected, atol=1e-5, rtol=0)


def test_a_head_that_bends_its_logits_falls_back_to_them(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("llama").requires_grad_(False)
    prompts, completions = rows_of(Policy(model, tiny_tokenizer()))
    plain = model.forward

    def bent(*inputs: Any, **named: Any) -> Any:
        output = plain(*inputs, **named)
        output.logits = torch.tanh(output.logits)
        return output

    model.forward = bent
    assert cheapest(model, prompts, completions) == "padded"
    assert "the head of llama is not a plain frozen linear layer" in caplog.text
    scored = score_completions(model, prompts, completions)
    single = padded_logprobs(model, prompts, completions)
    for row, expected in zip(scored.logprobs, single, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=0)


def test_the_layout_follows_the_shape_of_the_batch() -> None:
    model = tiny_model("llama").requires_grad_(False)
    text = tuple(range(200))
    long_text = [(*text, q, 7) for q in (1, 2) for _ in range(4)]
    assert cheapest(model, long_text, [(1, 2)] * 8) != "padded"
    nothing_shared = [(n,) * 9 for n in range(8)]
    assert cheapest(model, nothing_shared, [tuple(range(100))] * 8) != "tree"


def test_a_model_with_sliding_windows_takes_the_padded_layout_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny_model("mistral")
    model.config.sliding_window = 16
    prompts = [(*range(50), q) for q in (1, 2, 3)]
    for _ in range(2):
        assert cheapest(model, prompts, [(4,)] * 3) == "padded"
    assert [r.getMessage() for r in caplog.records] == [
        "Prompts are not shared: mistral attends within a window."
    ]


def test_trie_holds_each_shared_token_once() -> None:
    trie = merge([(1, 2, 3), (1, 2, 4), (1, 2, 3, 5), (9,)])
    assert trie.tokens == (1, 2, 3, 4, 5, 9)
    assert trie.depth == (0, 1, 2, 2, 3, 0)
    assert trie.paths == ((0, 1, 2), (0, 1, 3), (0, 1, 2, 4), (5,))


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12),
    limit=st.integers(1, 30),
)
def test_blocks_see_the_beginnings_of_their_rows_and_nothing_else(
    rows: list[list[int]], limit: int
) -> None:
    packed = pack(merge([tuple(row) for row in rows]), limit)
    size = len(packed.tokens)
    seen = torch.zeros(size, size, dtype=torch.bool)
    for block in packed.blocks:
        columns = [place for piece in block.keys for place in range(piece.start, piece.stop)]
        assert block.queries.stop - block.queries.start <= limit
        seen[block.queries.start : block.queries.stop, torch.tensor(columns)] = block.mask
    expected = torch.zeros_like(seen)
    for row, path in zip(rows, packed.paths, strict=True):
        assert packed.tokens[list(path)].tolist() == row
        assert packed.depth[list(path)].tolist() == list(range(len(row)))
        for end, node in enumerate(path):
            expected[node, list(path[: end + 1])] = True
    assert torch.equal(seen, expected)


def test_products_stay_float32_whoever_makes_them(moved: Policy) -> None:
    before = torch.get_float32_matmul_precision()
    assert allow_onednn() == (torch.get_float32_matmul_precision() == "medium")
    rows, weights = torch.randn(50, 300), torch.randn(70, 300)
    exact = rows.double() @ weights.double().T
    error = (torch.nn.functional.linear(rows, weights) - exact).norm() / exact.norm()
    torch.set_float32_matmul_precision(before)
    assert error < EXACT


def test_products_that_would_be_rounded_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(onednn, "_error_of_a_product", lambda: 4e-3)  # bfloat16's, with AMX
    assert not allow_onednn()
    assert torch.get_float32_matmul_precision() == "highest"
    torch.set_float32_matmul_precision(before)


def test_prefix_groups_hold_every_row_once_and_leave_it_a_token() -> None:
    text = tuple(range(20))
    prompts = [(*text, 1, 2), (*text, 3), text, (90, 91), (*text, 1, 2)]
    groups = shared_prefixes(prompts)
    assert sorted(i for group in groups for i in group.members) == [0, 1, 2, 3, 4]
    for group in groups:
        for index in group.members:
            assert prompts[index][: len(group.trunk)] == group.trunk
            assert len(prompts[index]) > len(group.trunk)
    assert len(groups) == 2


def test_a_row_alone_keeps_its_earlier_turns_for_later_rows() -> None:
    end, turns = 0, (*range(1, 9), 0, 9, 0)
    question = (10, 11, end, 12)
    assert shared_prefixes([(*turns, *question)])[0].trunk == ()
    assert shared_prefixes([(*turns, *question)], {end})[0].trunk == turns
    assert shared_prefixes([(*turns, *question, *range(20, 40))], {end})[0].trunk == ()
    assert shared_prefixes([(1, 2, *question)], {end})[0].trunk == ()


@pytest.mark.parametrize("form", ["shared", "branched"])
def test_questions_asked_one_by_one_compute_their_text_once(
    moved: Policy, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "MAX_SHARED_TOKENS", 64 if form == "shared" else 0)
    text = PromptProgram("x" * 200, SHORT.demonstrations)
    prompts = [moved.renderer.prompt_ids(text, question) for question in ("three", "four", "ten")]
    together = moved.sampler.sample(prompts, Sampling(5), [0, 0, 0])
    seen: list[int] = []
    hook = moved.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    alone = [moved.sampler.sample([prompt], Sampling(5), [0])[0] for prompt in prompts]
    hook.remove()
    assert [c.token_ids for c in alone] == [c.token_ids for c in together]
    assert sum(seen) < 1.5 * len(prompts[0])


@pytest.mark.parametrize("form", ["shared", "branched"])
def test_greedy_sampling_equals_generate_of_transformers(
    moved: Policy, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "MAX_SHARED_TOKENS", 64 if form == "shared" else 0)
    prompts = [
        moved.renderer.prompt_ids(program, question)
        for program in (SHORT, OTHER)
        for question in ("three", "four", "a longer question")
    ]
    completions = moved.sampler.sample(prompts, Sampling(5), [0] * len(prompts))
    for prompt, completion in zip(prompts, completions, strict=True):
        generated = moved.model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=5,
            do_sample=False,
            pad_token_id=moved.tokenizer.pad_token_id,
            eos_token_id=moved.tokenizer.eos_token_id,
        )
        assert completion.token_ids == tuple(generated[0, len(prompt) :].tolist())


@pytest.mark.parametrize("form", ["shared", "branched"])
def test_sampling_depends_on_a_rows_seed_and_not_on_its_batch(
    moved: Policy, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "MAX_SHARED_TOKENS", 64 if form == "shared" else 0)
    prompts = [moved.renderer.prompt_ids(SHORT, question) for question in "abcdefgh"]
    sampling, seeds = Sampling(6, temperature=1.0), list(range(8))
    together = moved.sampler.sample(prompts, sampling, seeds)
    apart = [
        moved.sampler.sample([p], sampling, [s])[0] for p, s in zip(prompts, seeds, strict=True)
    ]
    assert [c.token_ids for c in together] == [c.token_ids for c in apart]
    assert len({c.token_ids for c in together}) > 1
    assert moved.sampler.num_rollouts == 16


def test_recorded_logprobs_are_those_of_the_model(moved: Policy) -> None:
    prompts = [moved.renderer.prompt_ids(OTHER, question) for question in ("x", "yy")]
    completions = moved.sampler.sample(prompts, Sampling(5, 1.0), [1, 2])
    scored = moved.scorer.logprobs(prompts, [c.token_ids for c in completions])
    for completion, row in zip(completions, scored, strict=True):
        assert completion.logprobs == pytest.approx(row, abs=1e-4)


def test_a_trunk_kept_from_older_weights_is_not_used(moved: Policy) -> None:
    prompts = [moved.renderer.prompt_ids(SHORT, question) for question in "abcd"]
    moved.sampler.sample(prompts, Sampling(4), [0] * 4)
    for name, parameter in moved.model.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(-3)
    after = moved.sampler.sample(prompts, Sampling(4), [0] * 4)
    fresh = TorchEngine(moved.model, moved.renderer).sample(prompts, Sampling(4), [0] * 4)
    assert after == fresh


def test_fresh_adapter_leaves_logits_equal_and_moved_one_does_not(policy: Policy) -> None:
    ids = torch.tensor([policy.renderer.prompt_ids(SHORT, "three")])
    with policy.scorer.base_weights():
        base = policy.model(input_ids=ids).logits
    assert torch.equal(policy.model(input_ids=ids).logits, base)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data.add_(0.1)
    assert not torch.equal(policy.model(input_ids=ids).logits, base)


def test_kl_to_base_is_zero_when_fresh_and_the_hand_value_when_moved(moved: Policy) -> None:
    prompts, completions = rows_of(moved)
    measured = moved.scorer.kl_to_base(prompts, completions)
    ids = torch.tensor([prompts[1] + completions[1]])
    p = torch.log_softmax(moved.model(input_ids=ids).logits[0].double(), -1)
    with moved.scorer.base_weights():
        q = torch.log_softmax(moved.model(input_ids=ids).logits[0].double(), -1)
    expected = (p.exp() * (p - q)).sum(-1)[len(prompts[1]) - 1 : -1]
    assert measured[1] == pytest.approx(expected.tolist(), abs=1e-6)
    assert min(measured[1]) > 1e-4
    with moved.scorer.base_weights():
        assert max(map(max, moved.scorer.kl_to_base(prompts, completions))) < 1e-9


def test_evaluation_changes_neither_parameters_nor_generators(moved: Policy) -> None:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    fingerprint = moved.weights_fingerprint()
    prompts = [moved.renderer.prompt_ids(SHORT, question) for question in "ab"]
    moved.sampler.sample(prompts, Sampling(4, 1.0), [1, 2])
    moved.scorer.logprobs(prompts, [(1, 2), (3,)], adapter=False)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert moved.weights_fingerprint() == fingerprint


def test_the_tensors_of_an_adapter_are_those_that_peft_names(moved: Policy) -> None:
    from peft import get_peft_model_state_dict

    def of_peft(part: str) -> dict[str, torch.Tensor]:
        return dict(sorted(get_peft_model_state_dict(moved.model, adapter_name=part).items()))

    def equal(ours: dict[str, torch.Tensor], peft: dict[str, torch.Tensor]) -> bool:
        return list(ours) == list(peft) and all(torch.equal(ours[n], peft[n]) for n in peft)

    assert equal(concatenated(moved.model), of_peft(TRAINED))
    freeze_trained(moved.model, seed=1)
    assert equal(concatenated(moved.model, frozen=False), of_peft(TRAINED))
    whole = concatenated(moved.model)
    assert any("lora_A" in name for name in whole)
    for name, tensor in of_peft(FROZEN).items():
        axis = 0 if "lora_A" in name else 1
        assert torch.equal(whole[name].narrow(axis, 0, tensor.shape[axis]), tensor)


def test_saved_policy_loads_equal(moved: Policy, tiny_folder: Path, tmp_path: Path) -> None:
    moved.live["t"] = SHORT
    moved.save(tmp_path / "kept")
    assert not list(tmp_path.rglob("*.bin"))
    again = with_adapter(
        load_policy(str(tiny_folder)), rank=4, alpha=8, target_modules="all-linear", seed=9
    )
    assert again.weights_fingerprint() != moved.weights_fingerprint()
    again.load(tmp_path / "kept")
    assert again.weights_fingerprint() == moved.weights_fingerprint()
    assert again.live == {"t": SHORT}


def test_adapter_of_another_shape_is_refused(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    save_adapter(moved.model, tmp_path)
    other = with_adapter(
        load_policy(str(tiny_folder)), rank=2, alpha=8, target_modules="all-linear", seed=9
    )
    before = adapter_fingerprint(other.model)
    with pytest.raises(CheckpointError, match="28 of 28 tensors differ"):
        load_adapter(other.model, tmp_path)
    assert adapter_fingerprint(other.model) == before
    with pytest.raises(CheckpointError, match="no adapter there"):
        load_adapter(other.model, tmp_path / "nowhere")


def test_unknown_target_modules_are_named(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"slow\.lora\.target_modules.*nonsense"):
        with_adapter(
            load_policy(str(tiny_folder)), rank=2, alpha=2, target_modules=("nonsense",), seed=0
        )


def test_template_without_a_system_role_gets_the_instruction_in_the_first_turn() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template
    )
    renderer = Renderer(tokenizer)
    text = tokenizer.decode(renderer.prompt_ids(PromptProgram("Be brief."), "Why?"))
    assert "Be brief.\n\nWhy?" in text


def test_tokenizer_without_a_template_gets_plain_turns() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    text = tokenizer.decode(Renderer(tokenizer).prompt_ids(SHORT, "three"))
    assert text.startswith("Answer.\n\nQ: one\n\nA: 1<|im_end|>")
    assert text.endswith("Q: three\n\nA:")


def test_messages_are_system_then_demonstrations_then_question() -> None:
    assert [m["role"] for m in chat_messages(SHORT, "q")] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    assert chat_messages(PromptProgram(""), "q") == [{"role": "user", "content": "q"}]


def test_pickled_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"\*\.safetensors"):
        load_policy(str(folder))


def test_a_hub_that_cannot_be_reached_gives_one_line_that_says_what_to_do() -> None:
    with pytest.raises(ModelError) as raised:
        load_policy("some-org/no-such-model")
    message = str(raised.value)
    assert "\n" not in message
    assert "'some-org/no-such-model' is not a folder here and could not be loaded" in message
    assert "model.name=smollm2-135m-instruct" in message
