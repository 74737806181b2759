"""Every family of causal language models that transformers can build, held against single rows.

`python -m benchmarks.models` scans all of them and writes docs/models.md; names after it scan those
alone and print their rows. tests/contracts/test_models.py runs the same scan.
"""

import argparse
import hashlib
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.remedies.base import Stage, Update
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import GrpoConfig, SftConfig
from fastslow.channels.slow.sft import GoldTrainer
from fastslow.channels.slow.trainer import finish_update
from fastslow.core.errors import ModelError
from fastslow.core.text import shorten
from fastslow.core.types import Batch, Example, Grade, Sampling, TokenIds
from fastslow.measure.model.geometry import measure_geometry
from fastslow.policy.engine.sharing import pads_left, why_not_shared
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.results.render.markdown import inline
from fastslow.task.definition import Task

TABLE = Path("docs/models.md")
EXACT = 1e-5
"""Largest difference of log-probabilities in nats that counts as none."""
TINY: Mapping[str, Any] = {
    "vocab_size": 259,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim", "hidden_dim"), 32),
    **dict.fromkeys(("embedding_size", "lru_width", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("head_dim", "attention_head_size", "linear_key_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("state_size", "qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "inner_dim"), 64),
    **dict.fromkeys(("mlp_hidden_size", "ffn_hidden_size", "mamba_d_ssm"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "attention_window_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "linear_num_value_heads", "time_step_rank"), 4),
    **dict.fromkeys(("mamba_dt_rank", "rotary_dim"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "mamba_expand"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim"), 16),
    "pad_token_id": 256,
    "eos_token_id": 258,
}
"""What a tiny model of any family has, by the names that configurations use for it."""
DEFAULT = object()
"""Leaves a setting as the family has it."""
HYBRID = ["mamba", "attention", "mamba", "attention"]
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "falcon": {"num_kv_heads": 1, "head_dim": DEFAULT},
    "falcon-alibi": {"family": "falcon", "alibi": True, "num_kv_heads": 1, "head_dim": DEFAULT},
    "llama-untied": {"family": "llama", "tie_word_embeddings": False},
    "llama-tied": {"family": "llama", "tie_word_embeddings": True},
    "qwen2-window": {
        "family": "qwen2",
        "use_sliding_window": True,
        "max_window_layers": 2,
        "sliding_window": 16,
    },
    "phi3-longrope": {
        "family": "phi3",
        "sliding_window": None,
        "original_max_position_embeddings": 128,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 128,
        },
    },
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "layer_types": ["mamba", "hybrid"] * 2,
    },
    "granitemoehybrid": {"layer_types": HYBRID},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1, 3]},
    "gemma4_text": {"vocab_size_per_layer_input": 259, "hidden_size_per_layer_input": 8},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "minicpm3": {"scale_emb": 1},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "ernie4_5_moe": {"moe_k": 2},
}
"""What single families want besides, and variants of a family by a name of their own."""
EOS = 258


LEFT_OUT: Mapping[str, str] = {
    "gemma4_assistant": "has no configuration of its own by default",
    **dict.fromkeys(
        (
            "cohere_compass_text",
            "dbrx",
            "deepseek_v4",
            "gemma3n_text",
            "qwen4_exp_text",
            "reformer",
        ),
        "transformers cannot build it from a few sizes",
    ),
    "zamba": "transformers cannot save it tiny: its shared layers are tied by number",
}
"""Families that are not scanned, and why, besides those of `_not_text`."""
EXPLANATION = """\
Right means: greedy draws equal transformers' `generate` on ragged prompts, longer than the window
too; log-probabilities of the sampler, of the trainer and of one row read by itself agree within
1e-5 nats; a GRPO and an SFT update lower their loss; the saved adapter gives the same logits in
plain PEFT; the base stays as it was, bit for bit. `tests/contracts/test_models.py` holds it.

- *Log-probabilities*: the layouts that are proven equal to single rows when the model is loaded.
  Sharing (packed, tree) saves most of the work; rows padded on the right are right for every model.
- *Draws*: *shared* computes a common beginning once; *padded* draws prompts of different lengths
  together, *by length* only prompts of one length, both through `generate`.
- *Adapted by default*: what `slow.lora.target_modules: all-linear` trains. Routers are left alone,
  and so are experts that a family keeps in one tensor.
"""


@dataclass(frozen=True)
class Family:
    """What the scan says of one family."""

    name: str
    attention: str = ""
    decoding: str = ""
    targets: str = ""
    difference: float = 0.0
    """Largest, in nats, of sampler, trainer and single rows."""
    refused: str = ""
    """Why it is refused; empty for a family that is right."""
    wrong: str = ""
    """What did not hold; empty where all did."""


def build_model(name: str) -> Any:
    """A tiny model of the family, randomly initialised, in float32."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    special = dict(SPECIAL.get(name, {}))
    kind = CONFIG_MAPPING[special.pop("family", name)]
    default = kind()
    known = {*default.to_dict(), *kind.attribute_map}
    values = {k: v for k, v in TINY.items() if k in known}
    if "kv_lora_rank" in values:  # latent attention has a key head for each head
        values["num_key_value_heads"] = values["num_attention_heads"]
    config = kind(**{k: v for k, v in (values | special).items() if v is not DEFAULT})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return spread(model.eval())


@torch.no_grad()
def spread(model: Any) -> Any:
    """Larger weights, so that what a token attends to shows in its logits."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(1.5)
    return model


def scan(name: str) -> Family:
    """Build the family, load it as a user does, and hold every promise against single rows."""
    from tests.support.tiny import tiny_tokenizer

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        build_model(name).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        try:
            policy = load_policy(str(folder))
        except ModelError as error:
            reason = str(error).partition("cannot be adapted: ")[2].partition(". Use a causal")[0]
            return Family(name, refused=reason or str(error))
        return _hold(name, policy, folder, Path(place) / "adapter")


PROMPTS: Sequence[TokenIds] = tuple(
    tuple((5 + 3 * i * i + 11 * i + n) % 256 for i in range(n)) for n in (5, 20, 40, 20)
)
"""Ragged, and longer than the tiny windows."""


def _hold(name: str, policy: Policy, folder: Path, adapter: Path) -> Family:
    wrong = []
    if not _greedy_equals_generate(policy):
        wrong.append("greedy draws differ from generate")
    base = _hash(policy.model)
    tuned = with_adapter(policy, rank=2, alpha=4.0, target_modules="all-linear", seed=0)
    tuned.model.eval()
    with torch.no_grad():
        for number, weight in enumerate(tuned.adapters.trainable().values()):
            generator = torch.Generator().manual_seed(number)
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    difference = _difference(tuned)
    if difference > EXACT:
        wrong.append(f"log-probabilities differ by {difference:.1e} nats")
    for learn in (_learns_gold, _learns_rewards):
        if problem := learn(tuned):
            wrong.append(problem)
    adapters = tuned.adapters
    measure_geometry(lambda: adapters.deltas(None, None))
    tuned.activations([PROMPTS[0], PROMPTS[1]])
    tuned.save(adapter)
    if problem := _loads_elsewhere(tuned, folder, adapter):
        wrong.append(problem)
    if _hash(policy.model) != base:
        wrong.append("the base changed")
    shared = why_not_shared(tuned.model) is None
    return Family(
        name,
        attention=policy.model.config._attn_implementation.replace("fastslow_blocks", "sdpa"),
        decoding="shared" if shared else "padded" if pads_left(tuned.model) else "by length",
        targets=", ".join(tuned.adapters.modules()),
        difference=difference,
        wrong="; ".join(wrong),
    )


def _greedy_equals_generate(policy: Policy) -> bool:
    ours = policy.sampler.sample(PROMPTS, Sampling(8, 0.0), [0] * len(PROMPTS))
    for prompt, completion in zip(PROMPTS, ours, strict=True):
        with torch.no_grad():
            theirs = policy.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=8,
                do_sample=False,
            )[0, len(prompt) :].tolist()
        if list(completion.token_ids) != theirs:
            return False
    return True


def _difference(policy: Policy) -> float:
    drawn = policy.sampler.sample(PROMPTS, Sampling(8, 1.0), range(len(PROMPTS)))
    completions = [completion.token_ids for completion in drawn]
    with torch.no_grad():
        trained = policy.completion_logprobs(PROMPTS, completions)
    largest = 0.0
    for row, (prompt, completion) in enumerate(zip(PROMPTS, drawn, strict=True)):
        with torch.no_grad():
            ids = torch.tensor([prompt + completion.token_ids])
            logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        tokens = torch.tensor(completion.token_ids)
        alone = logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        for other in (torch.tensor(completion.logprobs), trained[row, : len(tokens)]):
            largest = max(largest, float((alone - other).abs().max()))
    return largest


TASK = Task(
    train=(Example("a", "one", "ab"), Example("b", "another one", "abcd")),
    validation=(Example("c", "x", "ab"),),
    test=(Example("d", "y", "ab"),),
    instruction="Write.",
    grade=lambda example, text: Grade(float(sum(map(ord, text)) % 2), ""),
    max_tokens=5,
    name="letters",
)
STEPS = (0.2, 0.02, 0.002, 0.0002)
"""Rates of an update, of which one goes downhill: a long step jumps over a change of routing, a
short one is lost in rounding where the gradient is small."""
BATCH = Batch(tuple((TASK.name, example) for example in TASK.train))


def _finish(policy: Policy, steps: float) -> Any:
    weights = list(policy.adapters.trainable().values())
    optimizer = torch.optim.SGD(weights, lr=steps)
    update = Update(Stage(policy, TASK, 0, (), seed=0), BATCH, 0, 0, steps, lambda: [])
    return lambda: finish_update(1.0, optimizer, Remedies(()), update)


def _learns_gold(policy: Policy) -> str:
    settings = SftConfig(lr=0.1)
    trainer = GoldTrainer(policy, {TASK.name: TASK}, len(BATCH.rows), settings)
    changes = []
    for step in reversed(STEPS):
        losses = [trainer.update(BATCH, 0, _finish(policy, step))["loss"] for _ in range(2)]
        changes.append(losses[1] - losses[0])
        if changes[-1] < 0:
            return ""
    return f"SFT changed its loss by {changes}, at steps of {STEPS[::-1]}"


def _learns_rewards(policy: Policy) -> str:
    settings = GrpoConfig(lr=0.1, group=8, gradient_context="with_text")
    trainer = FastSlowTrainer(policy, {TASK.name: TASK}, len(BATCH.rows), settings)
    for seed, step in product(range(8), STEPS):
        before = {k: v.detach().clone() for k, v in policy.adapters.trainable().items()}
        if trainer.update(BATCH, seed, _finish(policy, step))["skipped_updates"]:
            continue
        after = _advantage(policy, trainer)
        with torch.no_grad():
            for key, weight in policy.adapters.trainable().items():
                weight.copy_(before[key])
        if after > _advantage(policy, trainer):
            return ""
        if step == STEPS[-1]:
            return "GRPO lowered the rewarded rows' probability"
    return "GRPO never saw rewards that differ"


@torch.no_grad()
def _advantage(policy: Policy, trainer: FastSlowTrainer) -> float:
    """What the update climbs: log-probabilities of its rows, times their normalised rewards."""
    prompts, completions = zip(*trainer.scored_rows(), strict=True)
    rewards = torch.tensor([rollout.grade.score for rollout in trainer.rollouts])
    groups = rewards.view(-1, trainer.settings.group)
    centred = groups - groups.mean(1, keepdim=True)
    advantages = (centred / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    return float(
        (policy.completion_logprobs(prompts, completions).double().sum(1) * advantages).sum()
    )


def _loads_elsewhere(policy: Policy, folder: Path, adapter: Path) -> str:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, adapter).eval()
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        ours = policy.model.eval()(input_ids=ids, use_cache=False).logits
        theirs = loaded(input_ids=ids, use_cache=False).logits
    gap = float((ours - theirs).abs().max())
    return "" if gap < 1e-4 else f"the saved adapter gives other logits ({gap:.1e})"


def _hash(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if "lora_" not in name:
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def row(family: Family) -> str:
    """The family's row of the table."""
    shared = "packed, tree, padded" if family.decoding == "shared" else "padded"
    layouts = "" if family.refused else shared
    cells = [family.attention, layouts, family.decoding, family.targets, inline(family.refused)]
    return f"| {' | '.join([family.name, *cells])} |"


def families() -> list[str]:
    """Every family that transformers maps to a causal language model of text, and our variants."""
    variants = [name for name, special in SPECIAL.items() if "family" in special]
    return sorted({*_mapped(), *variants} - left_out().keys())


def left_out() -> dict[str, str]:
    """Families that are not scanned, and why."""
    reasons = {name: reason for name in _mapped() if (reason := _not_text(name))}
    return reasons | dict(LEFT_OUT)


def _mapped() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _not_text(name: str) -> str | None:
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[name]
    parts = {part for part in kind.sub_configs if part not in ("attn_config", "ffn_config")}
    if parts:
        return f"has parts of its own ({', '.join(sorted(parts))})"
    if name not in LEFT_OUT and getattr(kind(), "is_encoder_decoder", False):
        return "the decoder of an encoder-decoder"
    return None


def document(scanned: Sequence[Family]) -> str:
    """The text of docs/models.md."""
    import transformers

    right = [family for family in scanned if not family.refused]
    header = ["family", "attention", "log-probabilities", "draws", "adapted by default", "refused"]
    return "\n".join(
        [
            "# Models",
            "",
            "Every family of causal language models in transformers "
            f"{transformers.__version__}, built tiny and held against single",
            "rows; written by `python -m benchmarks.models`, and `tests/contracts/test_models.py`",
            f"holds it. Of {len(scanned)} families {len(right)} are right and "
            f"{len(scanned) - len(right)} are refused before any work.",
            "",
            *EXPLANATION.splitlines(),
            "",
            f"| {' | '.join(header)} |",
            f"|{' --- |' * len(header)}",
            *(row(family) for family in scanned),
            "",
            "Not built here:",
            "",
            *(f"- {name}: {reason}" for name, reason in sorted(left_out().items())),
            "",
        ]
    )


def main() -> None:
    """Scan families; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="families; none is all, and writes the document")
    names = parser.parse_args().names
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    scanned = []
    for number, name in enumerate(names or families(), 1):
        try:
            family = scan(name)
        except Exception as error:  # the scan goes on; the test would not
            family = Family(name, wrong=f"{type(error).__name__}: {shorten(str(error), 300)}")
        scanned.append(family)
        state = family.wrong or family.refused or f"right, {family.difference:.0e} nats"
        print(f"{number:3} {name}: {state}", flush=True)
    if not names:
        TABLE.write_text(document(scanned))


if __name__ == "__main__":
    main()
