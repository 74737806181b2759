"""How an export is used: a few lines for transformers, vLLM and DSPy, run in the export's folder.

The lines for transformers and DSPy are executed by the tests. Those for vLLM are not: their names
are those of its documentation.
"""

from dataclasses import dataclass

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `max_lora_rank` that vLLM takes. Source: vllm/config/lora.py."""
PORT = 8000
"""Where `vllm serve` listens."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The values that the lines hold."""

    task: str
    question: str
    """An example to ask; untrusted text."""
    max_tokens: int
    """Limit of a completion of this task."""
    adapter: str | None
    """Folder of the task's adapter, relative to the export; None where there is none to load."""
    rank: int | None
    """Highest rank of the export's adapters; None without any."""
    adapters: tuple[str, ...]
    """Folders of all adapters, relative to the export."""
    is_model: bool
    """Whether the export holds the whole model, so that no base is needed."""
    dtype: str
    """Number format of the weights in the run."""


def served_name(adapter: str | None) -> str:
    """The name under which a server offers an adapter, or the model itself."""
    return "policy" if adapter in (None, ".") else str(adapter).rpartition("/")[2]


def vllm_rank(rank: int) -> int | None:
    """The smallest `max_lora_rank` of vLLM that takes an adapter; None where all are too small."""
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


def transformers_snippet(use: Usage) -> str:
    """Ask one question with transformers, and PEFT where there is an adapter."""
    peft = use.adapter is not None
    source = "folder" if use.is_model else 'json.load(open(f"{folder}/export.json"))["base"]'
    model = f'AutoModelForCausalLM.from_pretrained({source}, dtype="{use.dtype}")'
    lines = [
        "import json",
        *(["from peft import PeftModel"] if peft else []),
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
        f'folder, question = ".", {use.question!a}',
        f'prompt = json.load(open(f"{{folder}}/prompts/{use.task}.json"))',
        f"model = PeftModel.from_pretrained({model}, f\"{{folder}}/{{prompt['adapter']}}\")"
        if peft
        else f"model = {model}",
        "tokenizer, settings = AutoTokenizer.from_pretrained(folder), "
        'GenerationConfig.from_pretrained(folder, max_new_tokens=prompt["max_tokens"])',
        'chat = tokenizer.apply_chat_template([*prompt["messages"], {"role": "user", "content": '
        'question}], add_generation_prompt=True, return_dict=True, return_tensors="pt")',
        "ids = model.generate(**chat, generation_config=settings)",
        'print(tokenizer.decode(ids[0, chat["input_ids"].shape[1]:], skip_special_tokens=True))',
    ]
    return "\n".join(lines)


def vllm_snippet(use: Usage) -> str | None:
    """Ask one question with vLLM; None where its highest LoRA rank is too low."""
    lora = use.adapter is not None and use.rank is not None
    rank = vllm_rank(use.rank) if lora and use.rank is not None else None
    if lora and rank is None:
        return None
    source = "folder" if use.is_model else 'json.load(open(f"{folder}/export.json"))["base"]'
    options = f", enable_lora=True, max_lora_rank={rank}" if lora else ""
    request = (
        f', lora_request=LoRARequest("{served_name(use.adapter)}", 1, '
        "f\"{folder}/{prompt['adapter']}\")"
        if lora
        else ""
    )
    lines = [
        "import json",
        "from vllm import LLM, SamplingParams",
        *(["from vllm.lora.request import LoRARequest"] if lora else []),
        f'folder, question = ".", {use.question!a}',
        f'prompt = json.load(open(f"{{folder}}/prompts/{use.task}.json"))',
        f"llm = LLM({source}, tokenizer=folder, generation_config=folder{options})",
        'sampling = SamplingParams(temperature=0, max_tokens=prompt["max_tokens"], '
        'stop_token_ids=prompt["stop_token_ids"])',
        'chat = [*prompt["messages"], {"role": "user", "content": question}]',
        f"print(llm.chat(chat, sampling{request})[0].outputs[0].text)",
    ]
    return "\n".join(lines)


def serve_command(use: Usage, base: str) -> str:
    """The command that serves the export for the lines of `dspy_snippet`."""
    if use.is_model:
        return "vllm serve . --served-model-name policy"
    words = f"vllm serve {base} --tokenizer . --generation-config . --served-model-name base"
    if use.rank is None or (rank := vllm_rank(use.rank)) is None:
        return words.replace("name base", "name policy")
    modules = " ".join(f"{served_name(adapter)}={adapter}" for adapter in use.adapters)
    return f"{words} --enable-lora --max-lora-rank {rank} --lora-modules {modules}"


def dspy_snippet(use: Usage) -> str:
    """Ask one question through the DSPy program, of any server that speaks OpenAI's chat API."""
    return "\n".join(
        [
            "import dspy",
            "from fastslow.channels.fast.dspy_programs import load_program",
            f"question = {use.question!a}",
            f'lm = dspy.LM("openai/{served_name(use.adapter)}", engine="lm15", api_key="none",',
            f'             api_base="http://127.0.0.1:{PORT}/v1",',
            f"             cache=False, temperature=0, max_tokens={use.max_tokens})",
            "with dspy.context(lm=lm):",
            f'    print(load_program("programs/{use.task}")(question=question).answer)',
        ]
    )
