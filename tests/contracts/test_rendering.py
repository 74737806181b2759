"""What the renderer promises for every chat template: those that TRL ships, and made ones."""

import re
from datetime import date
from importlib.resources import files
from typing import Any

import pytest

from fastslow.core.errors import ModelError
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import TokenIds
from fastslow.policy.render import Renderer, chat_messages

SHIPPED = {
    path.name.removesuffix(".jinja"): path.read_text()
    for path in (files("trl") / "chat_templates").iterdir()
    if path.name.endswith(".jinja") and "_training" not in path.name
}
"""Templates of real models, by name; without TRL's own changes for training."""
OF_IMAGES = {"idefics3", "llava_next", "smolvlm"}
"""They render lists of parts and drop plain text, so they are refused."""
REWRITES_PAST = {
    *("deepseek_r1_distill", "deepseekv3", "diffusion_gemma", "gemma4", "glm4moe", "gptoss"),
    *(f"gemma4_v{number}" for number in range(2, 6)),
    *(name for name in SHIPPED if name.startswith(("nemotron", "qwen3_5", "qwen3_6"))),
    "qwen3",
}
"""They write past answers in another way than the present one: without its thoughts, mostly."""

TURNS = "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | trim + '<end>' }}"
OPENING = "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
MADE = {
    "none": None,
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "refuses system": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    + TURNS
    + OPENING,
    "drops system": "{{ bos_token }}{% for m in messages %}{% if m.role != 'system' %}"
    "{{ '<' + m.role + '>\n' + m.content + '<end>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}",
    "drops system of long chats": "{% for m in messages %}"
    "{% if m.role != 'system' or messages | length < 3 %}<{{ m.role }}>{{ m.content }}<end>"
    "{% endif %}" + OPENING,
    "mistral": "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content "
    "%}{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    "[INST] {% if loop.last and s is defined %}{{ s + '\n\n' }}{% endif %}{{ m.content }}[/INST]"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    "dated": "{{ bos_token }}{% set day = strftime_now('%d %B %Y, a %A') %}Today: {{ day }}\n"
    + TURNS
    + OPENING,
    "dated in a macro": "{%- macro head(text) -%}{{ strftime_now('%b %-d') }} {{ text }}"
    "{%- endmacro -%}{% if strftime_now is defined %}{{ head('!') }}{% endif %}" + TURNS + OPENING,
    "ends in a space": "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    "begins with space": "\n  {% for m in messages %}<{{ m.role }}>{{ m.content }}<end>" + OPENING,
}
TEMPLATES = {**MADE, **{name: SHIPPED[name] for name in sorted(SHIPPED.keys() - OF_IMAGES)}}
KINDS = ("byte level", "metaspace", "metaspace at every piece")

INSTRUCTION = "Name the continent."
PROGRAM = PromptProgram(INSTRUCTION, (Demonstration("France", "Europe"), Demonstration("Chad", "")))
CORPUS = (
    "Name the continent of a country. Q: France A: Europe assistant: Asia, user: word sound " * 9
)


def make_tokenizer(template: str | None, kind: str = "byte level", has_bos: bool = True) -> Any:
    """A small trained tokenizer that has the template's special tokens.

    Byte pairs as in GPT-2, or pieces of words with the space as `▁`, as in sentencepiece.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    marks = re.findall(
        r"<\|[\w ]+\|>|<\uff5c[^\uff5c]+\uff5c>|<(?:start|end)_of_turn>|<end>", template or ""
    )
    special = ["<unk>", "<s>", "</s>", *sorted(set(marks))]
    if kind == "byte level":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
        )
    else:
        scheme = "first" if kind == "metaspace" else "always"
        inner = Tokenizer(models.Unigram())
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
        trainer = trainers.UnigramTrainer(
            vocab_size=400,
            initial_alphabet=["\n", *map(chr, range(33, 127))],
            special_tokens=special,
            unk_token="<unk>",
            show_progress=False,
        )
    inner.train_from_iterator([CORPUS, template or ""], trainer)
    if has_bos:
        bos = [("<s>", inner.token_to_id("<s>"))]
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def is_inside(part: TokenIds, whole: TokenIds) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_demonstration_has_the_tokens_that_gold_answers_are_taught_in(
    name: str, kind: str
) -> None:
    renderer = Renderer(make_tokenizer(TEMPLATES[name], kind))
    shown = renderer.prompt_ids(PROGRAM, "Peru")
    asked = renderer.prompt_ids(PromptProgram(INSTRUCTION), "France")
    taught = asked + renderer.answer_ids("Europe")
    if name == "mistral":  # it writes the instruction into the last turn
        taught = renderer.prompt_ids(PromptProgram(""), "France") + renderer.answer_ids("Europe")
    assert (shown[: len(taught)] == taught) == (name not in REWRITES_PAST)
    assert renderer.answer_ids("Europe")[-1] == renderer.stop_id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_comes_back_from_its_tokens(name: str, kind: str) -> None:
    renderer = Renderer(make_tokenizer(TEMPLATES[name], kind))
    for answer in ("Europe", "South Asia, word", "a"):
        assert renderer.decode(renderer.answer_ids(answer)) == answer


@pytest.mark.parametrize("name", TEMPLATES)
def test_instructions_are_visible_and_one_token_begins_the_text(name: str) -> None:
    tokenizer = make_tokenizer(TEMPLATES[name])
    renderer = Renderer(tokenizer)
    for demonstrations in ((), PROGRAM.demonstrations):
        first = renderer.prompt_ids(PromptProgram("Be brief.", demonstrations), "Peru")
        second = renderer.prompt_ids(PromptProgram("Be long.", demonstrations), "Peru")
        assert first != second
        assert "Be brief." in tokenizer.decode(first)
    writes_bos = "bos_token" in (TEMPLATES[name] or "bos_token")
    assert first.count(tokenizer.bos_token_id) == (first[0] == tokenizer.bos_token_id) == writes_bos


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_same_on_another_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as clock

    import transformers.utils.chat_template_utils as library

    def render(day: date | None) -> tuple[TokenIds, Any]:
        tokenizer = make_tokenizer(TEMPLATES[name])
        return Renderer(tokenizer, day=day).prompt_ids(PROGRAM, "Peru"), tokenizer

    today, kept = render(date(2024, 12, 31))

    class Later(clock.datetime):
        @classmethod
        def now(cls, tz: clock.tzinfo | None = None) -> "Later":
            return cls(2031, 3, 5, tzinfo=tz)

    monkeypatch.setattr(library, "datetime", Later)
    assert render(date(2024, 12, 31))[0] == today
    is_dated = "strftime_now" in (TEMPLATES[name] or "") and name != "muse_glimmer"  # for tools
    assert (render(date(2023, 1, 1))[0] != today) == is_dated
    assert Renderer(kept).prompt_ids(PROGRAM, "Peru") == today  # as an exported tokenizer is loaded
    chat = chat_messages(PROGRAM, "Peru")
    ids = kept.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert tuple(ids) == today


def test_the_day_is_written_as_the_template_writes_it() -> None:
    tokenizer = make_tokenizer(MADE["dated"])
    ids = Renderer(tokenizer, day=date(2024, 2, 9)).prompt_ids(PROGRAM, "Peru")
    assert "Today: 09 February 2024, a Friday\n" in tokenizer.decode(ids)
    tokenizer = make_tokenizer(MADE["dated in a macro"])
    ids = Renderer(tokenizer, day=date(2024, 2, 9)).prompt_ids(PROGRAM, "Peru")
    assert tokenizer.decode(ids).startswith("Feb 9 !")


def test_arguments_reach_prompts_and_answers() -> None:
    thinks = Renderer(make_tokenizer(SHIPPED["qwen3"]))
    tokenizer = make_tokenizer(SHIPPED["qwen3"])
    answers = Renderer(tokenizer, {"enable_thinking": False})
    empty = "<think>\n\n</think>\n\n"
    program = PromptProgram(INSTRUCTION)
    prompt = tokenizer.decode(answers.prompt_ids(program, "France"))
    assert prompt.endswith("<|im_start|>assistant\n" + empty)
    assert not tokenizer.decode(thinks.prompt_ids(program, "France")).endswith(empty)
    # what is taught, as one text, is what the template writes for a last answer
    for renderer in (thinks, answers):
        taught = renderer.prompt_ids(program, "France") + renderer.answer_ids("Europe")
        assert tokenizer.decode(taught).endswith(f"assistant\n{empty}Europe<|im_end|>")
        assert renderer.decode(renderer.answer_ids("Europe")) == "Europe"
    assert is_inside(answers.answer_ids("Europe"), answers.prompt_ids(PROGRAM, "Peru"))


@pytest.mark.parametrize("value", [True, None, 3, "a 'b' }} \n😀", ["x", {"y": 1.5}]])
def test_an_argument_may_be_any_plain_data(value: Any) -> None:
    template = "{{ style | tojson }}" + TURNS + OPENING
    tokenizer = make_tokenizer(template)
    Renderer(tokenizer, {"style": value})
    bound = tokenizer.apply_chat_template(chat_messages(PROGRAM, "q"), tokenize=False)
    tokenizer.chat_template = template
    given = tokenizer.apply_chat_template(chat_messages(PROGRAM, "q"), tokenize=False, style=value)
    assert bound == given


@pytest.mark.parametrize(
    ("name", "argument", "advice"),
    [
        ("qwen3", "enable_thinkin", "Did you mean 'enable_thinking'?"),
        ("llama3_2", "nonsense", "date_string"),
        ("qwen3", "messages", "Known: "),
        ("dated", "strftime_now", "None are known."),
        ("none", "enable_thinking", "None are known."),
    ],
)
def test_an_argument_that_the_template_never_reads_is_an_error(
    name: str, argument: str, advice: str
) -> None:
    with pytest.raises(ModelError, match=f"reads no argument '{argument}'") as error:
        Renderer(make_tokenizer(TEMPLATES[name]), {argument: False})
    assert advice in str(error.value)


@pytest.mark.parametrize("name", sorted(OF_IMAGES))
def test_a_template_that_leaves_out_questions_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match="leaves out the text of these turns: system, user, ass"):
        Renderer(make_tokenizer(SHIPPED[name]))


@pytest.mark.parametrize("has_bos", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_turns_end_before_the_space_of_the_answer(kind: str, has_bos: bool) -> None:
    tokenizer = make_tokenizer(None, kind, has_bos)
    renderer = Renderer(tokenizer)
    prompt = renderer.prompt_ids(PromptProgram(INSTRUCTION), "France")
    text = tokenizer.decode(prompt, skip_special_tokens=True)
    assert text.endswith("Q: France\n\nA:")
    assert prompt.count(tokenizer.bos_token_id) == has_bos
    assert renderer.text_ids("Some prose.").count(tokenizer.bos_token_id) == has_bos
    assert tokenizer.convert_ids_to_tokens(renderer.answer_ids("Europe")[0])[0] in "Ġ▁"
