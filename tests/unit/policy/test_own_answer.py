"""No prompt shows the answer of the question it asks, wherever the prompt came from."""

import pytest

from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.policy.render import Renderer, chat_messages
from tests.support.tiny import tiny_tokenizer

PROGRAM = PromptProgram(
    "Answer.", (Demonstration("one?", "the first"), Demonstration("two?", "the second"))
)


@pytest.mark.parametrize("question", ["two?", " Two? ", "TWO?"])
def test_a_demonstration_of_the_question_at_hand_is_left_out(question: str) -> None:
    renderer = Renderer(tiny_tokenizer())
    prompt = renderer.decode(renderer.prompt_ids(PROGRAM, question))
    assert "the first" in prompt
    assert "the second" not in prompt
    other = renderer.decode(renderer.prompt_ids(PROGRAM, "three?"))
    assert "the first" in other
    assert "the second" in other


def test_so_it_is_where_messages_come_from_elsewhere() -> None:
    renderer = Renderer(tiny_tokenizer())
    messages = chat_messages(PROGRAM, "one?")
    rendered = renderer.decode(renderer.message_ids([dict(message) for message in messages]))
    assert "the first" not in rendered
    assert rendered.count("one?") == 1
    assert "Answer." in rendered
