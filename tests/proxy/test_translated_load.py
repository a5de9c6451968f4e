"""Many translated streams at once, and large things through a translation, on both servers."""

import asyncio
import base64
import json
from typing import Any

import httpx
import psutil
import pytest

from tests.gateway import Gateway
from tests.proxy.inside import HELLO
from tests.upstreams import Received, Reply, Upstream, chat_stream, completion, event, tool_call, usage

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
MEGABYTE = 1024 * 1024


def texts(body: str) -> str:
    """What a stream of Messages says."""
    found = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert found[-1]["type"] == "message_stop", body[-300:]
    return "".join(each["delta"].get("text", "") for each in found if each["type"] == "content_block_delta")


def test_fifty_streams_at_once_do_not_mix(gateway: Gateway, api_key: str, recorder: Upstream) -> None:
    def echo(asked: Received) -> Reply:
        word = asked.json["messages"][-1]["content"]
        return chat_stream(*(f"{word}-{number} " for number in range(12)), pause=0.02)

    recorder.answers(echo)

    async def read(client: httpx.AsyncClient, word: str) -> str:
        asked = {"model": "vendor/recorded", "max_tokens": 50, "messages": [{"role": "user", "content": word}]}
        return texts((await client.post(MESSAGES, json={**asked, "stream": True})).text)

    async def all_at_once() -> list[str]:
        headers = {"authorization": f"Bearer {api_key}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, limits=limits, timeout=30) as client:
            return await asyncio.gather(*(read(client, f"w{number}") for number in range(50)))

    for number, said in enumerate(asyncio.run(all_at_once())):
        assert said == "".join(f"w{number}-{place} " for place in range(12))


def call_in_pieces(arguments: str, size: int) -> Reply:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({"id": "c1", "object": "chat.completion.chunk", "model": "x", "choices": [choice]})

    def part(**more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, **more}]}

    pieces = [chunk(part(id="call_1", type="function", function={"name": "write", "arguments": ""}))]
    pieces += [chunk(part(function={"arguments": arguments[at : at + size]})) for at in range(0, len(arguments), size)]
    pieces += [chunk({}, "tool_calls"), event({"choices": [], "usage": usage()}), b"data: [DONE]\n\n"]
    return Reply(pieces)


@pytest.mark.parametrize("stream", [True, False])
def test_a_megabyte_of_arguments(gateway: Gateway, api_key: str, recorder: Upstream, stream: bool) -> None:
    content = 'é\\ "quoted"\n😀' * (MEGABYTE // 14)
    arguments = json.dumps({"text": content})
    recorder.answers(call_in_pieces(arguments, 997) if stream else tool_call("write", text=content))
    tool = {"name": "write", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}
    asked = {"model": "vendor/recorded", "max_tokens": 50, "messages": HELLO, "tools": [tool], "stream": stream}
    with gateway.client(api_key) as client:
        answer = client.post(MESSAGES, json=asked)
    assert answer.status_code == 200
    if not stream:
        assert answer.json()["content"][0]["input"] == {"text": content}
        return
    found = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
    pieces = [each["delta"]["partial_json"] for each in found if each["type"] == "content_block_delta"]
    assert json.loads("".join(pieces)) == {"text": content}


def rss(gateway: Gateway) -> int:
    """Bytes of the gateway's processes."""
    first = psutil.Process(gateway.pid)
    return sum(process.memory_info().rss for process in [first, *first.children(recursive=True)])


def test_ten_megabytes_of_an_image(gateway: Gateway, api_key: str, recorder: Upstream) -> None:
    """It arrives whole, again and again, and the memory for it is given back."""
    recorder.answers(completion("I see"))
    data = base64.b64encode(bytes(range(256)) * (10 * MEGABYTE // 256)).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    asked = {"model": "vendor/recorded", "max_tokens": 50, "messages": [{"role": "user", "content": [image]}]}
    body = json.dumps(asked).encode()
    sizes = []
    with gateway.client(api_key) as client:
        for _ in range(8):
            answer = client.post(MESSAGES, content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 200, answer.text[:500]
            (part,) = recorder.last.json["messages"][0]["content"]
            assert part["image_url"]["url"] == f"data:image/png;base64,{data}"
            recorder.requests.clear()
            sizes.append(rss(gateway))
    assert sizes[-1] < sizes[1] + 60 * MEGABYTE, sizes
