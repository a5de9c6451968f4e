"""LlamaIndex's OpenAILike against running gateways: chat, stream_chat."""

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from tests.gateway import Gateway
from tests.tiny_model import SENTENCE

HELLO = [ChatMessage(role="user", content="Hello")]


@pytest.fixture
def llm(gateway: Gateway, api_key: str) -> OpenAILike:
    return OpenAILike(
        model="vendor/tiny", api_base=gateway.base_url, api_key=api_key, is_chat_model=True, max_retries=0, timeout=20
    )


def test_it_works(llm: OpenAILike) -> None:
    assert (llm.chat(HELLO).message.content or "").strip() == SENTENCE


def test_stream(llm: OpenAILike) -> None:
    answers = list(llm.stream_chat(HELLO))
    assert "".join(answer.delta or "" for answer in answers).strip() == SENTENCE
    assert len(answers) > 5, "not streamed"
