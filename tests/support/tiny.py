"""A tiny instruct model built in code: a real architecture, a chat template, no download."""

from pathlib import Path
from typing import Any

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer() -> Any:
    """Every byte is a token; ChatML turns."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(family: str = "llama", seed: int = 0) -> Any:
    """Two layers of width 32 of a real architecture, randomly initialised, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    vocab = len(tiny_tokenizer())
    config = AutoConfig.for_model(
        family,
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        eos_token_id=vocab - 1,
        pad_token_id=vocab - 3,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()


def save_tiny(folder: Path, family: str = "llama") -> Path:
    """Write model and tokenizer as a local model folder."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_outspoken(folder: Path) -> Path:
    """The same with weights twelve times as large, so that answers differ."""
    from safetensors.torch import load_file, save_file

    file = save_tiny(folder) / "model.safetensors"
    larger = {name: w if "norm" in name else w * 12 for name, w in load_file(file).items()}
    save_file(larger, file, {"format": "pt"})
    return folder
