"""What the official SDKs, asynchronous and without second tries, tell their caller of one answer."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Self

import anthropic
import openai
from google import genai
from google.genai import errors, types

RAISED = (openai.APIError, anthropic.APIError, errors.APIError)


@dataclass
class Told:
    """`text`: what had come, also where the SDK then `raised`. `ended`: it saw the format's own end."""

    text: str = ""
    ended: bool = False
    raised: Exception | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        end = (
            f"{type(self.raised).__name__}: {self.raised}"
            if self.raised
            else "a normal end"
            if self.ended
            else "no end"
        )
        return f"{self.text!r}, then {end[:200]}, after {self.seconds:.1f} s"


Piece = tuple[str, bool]  # of the text; whether the answer ends with it


class Clients:
    """Use it in `async with`: one of each SDK, for all requests."""

    def __init__(self, url: str, key: str) -> None:
        self._openai = openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=20)
        self._anthropic = anthropic.AsyncAnthropic(api_key=key, base_url=url, max_retries=0, timeout=20)
        self._google = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, timeout=20_000))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._openai.close()
        await self._anthropic.close()
        await self._google.aio.aclose()
        self._google.close()

    async def ask(self, dialect: str, model: str, *, streamed: bool) -> Told:
        told, begun = Told(), time.monotonic()
        readers: dict[str, Callable[[str, bool], AsyncIterator[Piece]]] = {
            "chat": self._chat,
            "responses": self._responses,
            "messages": self._messages,
            "gemini": self._gemini,
        }
        try:
            async for text, ends in readers[dialect](model, streamed):
                told.text += text
                told.ended = told.ended or ends
        except Exception as error:  # noqa: BLE001  # another than `RAISED` is a finding, and must not end the other requests
            told.raised = error
        told.seconds = time.monotonic() - begun
        return told

    async def _chat(self, model: str, streamed: bool) -> AsyncIterator[Piece]:
        asked: Any = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        if not streamed:
            [whole] = (await self._openai.chat.completions.create(**asked)).choices
            yield whole.message.content or "", whole.finish_reason == "stop"
            return
        async for chunk in await self._openai.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                yield choice.delta.content or "", choice.finish_reason == "stop"

    async def _responses(self, model: str, streamed: bool) -> AsyncIterator[Piece]:
        if not streamed:
            whole = await self._openai.responses.create(model=model, input="Hi")
            yield whole.output_text, whole.status == "completed"
            return
        async for event in await self._openai.responses.create(model=model, input="Hi", stream=True):
            if event.type == "response.output_text.delta":
                yield event.delta, False
            elif event.type == "response.completed":
                yield "", True

    async def _messages(self, model: str, streamed: bool) -> AsyncIterator[Piece]:
        asked: Any = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
        if not streamed:
            whole = await self._anthropic.messages.create(**asked)
            yield "".join(block.text for block in whole.content), whole.stop_reason == "end_turn"
            return
        async for event in await self._anthropic.messages.create(**asked, stream=True):
            if event.type == "content_block_delta":
                yield event.delta.text, False
            elif event.type == "message_stop":
                yield "", True

    async def _gemini(self, model: str, streamed: bool) -> AsyncIterator[Piece]:
        models = self._google.aio.models
        if not streamed:
            yield _part(await models.generate_content(model=model, contents="Hi"))
            return
        async for chunk in await models.generate_content_stream(model=model, contents="Hi"):
            yield _part(chunk)


def _part(chunk: types.GenerateContentResponse) -> Piece:
    reasons = [candidate.finish_reason for candidate in chunk.candidates or ()]
    return chunk.text or "", types.FinishReason.STOP in reasons
