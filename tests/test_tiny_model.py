"""The tiny model is a provider that nobody here wrote: it answers, streams, counts, and refuses."""

import json

import httpx
import pytest

from tests.tiny_model import SENTENCE, TOKENS_OUT, TinyModel

HELLO = [{"role": "user", "content": "Hello"}]


def ask(server: TinyModel, key: str = "", **fields: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or server.api_key}"}
    return httpx.post(
        f"{server.base_url}/chat/completions", headers=headers, json={"model": server.name, "messages": HELLO, **fields}
    )


def test_it_works(tiny_model: TinyModel) -> None:
    answer = ask(tiny_model).json()
    assert answer["choices"][0]["message"]["content"].strip() == SENTENCE
    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("tiny", TOKENS_OUT)


def test_it_streams(tiny_model: TinyModel) -> None:
    lines = [line.removeprefix("data: ") for line in ask(tiny_model, stream=True).text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"].get("content") for line in lines[:-1]]
    assert "".join(filter(None, deltas)).strip() == SENTENCE


@pytest.mark.parametrize(
    ("fields", "text"), [({"max_tokens": 1}, " Every"), ({"stop": [" tiny"]}, " Every answer of this")]
)
def test_it_stops_when_told(tiny_model: TinyModel, fields: dict[str, object], text: str) -> None:
    assert ask(tiny_model, **fields).json()["choices"][0]["message"]["content"] == text


def test_a_bad_key(tiny_model: TinyModel) -> None:
    assert ask(tiny_model, "sk-wrong").status_code == 401
