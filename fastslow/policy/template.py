"""The chat template a run renders with: the model's own, with whatever could change bound into it.

A template is a Jinja program. What is bound goes in front of it as Jinja, so that the text of the
result renders alike on another day, and in another program.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from fastslow.core.errors import ModelError, nearest
from fastslow.core.text import shorten

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'system': '', 'user': 'Q: ', 'assistant': 'A: '}[message['role']] }}"
    "{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
"""For tokenizers without a chat template: base models, mostly. The space before an answer is of the
answer: a word and its space are one token."""

FOLD_SYSTEM = (
    "{% if messages and messages[0]['role'] == 'system' and messages | length > 1 %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' "
    "+ messages[1]['content']}] + messages[2:] %}{% endif %}\n"
)
"""Puts system text before the first user turn, for templates that refuse or drop a system turn.

Here and below a line break after a tag is not rendered: transformers sets `trim_blocks`."""

DATE_FIELDS = "aAbBdeFHIjmMpSuUwWyY"
"""Letters of `strftime` fields that are rendered for the fixed day, at midnight."""
GIVEN = {"messages", "add_generation_prompt", "strftime_now"}
"""Variables of a template that are not the user's to set, next to the special tokens."""


def plain_template(tokenizer: Any) -> str:
    """`PLAIN_TEMPLATE`, behind the token that `tokenizer` puts in front of every text, if any."""
    return "{{ bos_token }}" * starts_with_bos(tokenizer) + PLAIN_TEMPLATE


def starts_with_bos(tokenizer: Any) -> bool:
    """Whether a text as the model was pretrained on it starts with the beginning-of-text token."""
    return tokenizer.bos_token_id in tokenizer("x")["input_ids"][:1]


def bound_template(template: str, arguments: Mapping[str, Any], day: date) -> str:
    """`template` with its arguments set, and `day` for today.

    Args:
        template: Jinja source, untrusted; it runs in the sandbox of transformers.
        arguments: Variables of the template by name, plain data.
        day: What `strftime_now` tells, in the English of the C locale.

    Raises:
        ModelError: The template reads no variable of such a name; names those it reads.
    """
    names = variables(template)
    readable = {name for name in names if name not in GIVEN and not name.endswith("_token")}
    for name in arguments:
        if name not in readable:
            raise ModelError(
                "model.chat_template_kwargs: the chat template of this model reads no argument "
                f"{shorten(name, 100)!r}.{nearest(name, readable)} Remove it."
            )
    settings = [f"{{% set {name} = {value!a} %}}\n" for name, value in arguments.items()]
    clock = _fixed_clock(template, day) if "strftime_now" in names else ""
    return clock + "".join(settings) + template


def without_last_space(template: str) -> str:
    """`template`, where the opening of an answer ends before the spaces it would end in."""
    trimmed = "{{ rendered.rstrip(' ') if add_generation_prompt else rendered }}"
    return f"{{% set rendered %}}\n{template}{{% endset %}}{trimmed}"


def variables(template: str) -> set[str]:
    """Names that a template takes from outside: its arguments, and functions of transformers."""
    from jinja2 import meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = _compile_jinja_template(template).environment  # knows the tags of transformers
    shipped, bare = set(environment.globals) - {"strftime_now"}, environment.overlay()
    bare.globals = {}  # else names in it count as declared
    return meta.find_undeclared_variables(bare.parse(template)) - shipped


def _fixed_clock(template: str, day: date) -> str:
    """A macro that takes the place of transformers' `strftime_now`, whose day is today."""
    fields = sorted(set(re.findall(rf"%-?[{DATE_FIELDS}]", template)))
    steps = "".join(f" | replace({field!a}, {day.strftime(field)!a})" for field in fields)
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n"
