"""A scripted provider in a process of its own, which keeps its own account of every request: `GET /account`.

It speaks OpenAI's chat. What it is to do stands in the request's field `exact` (a `Script`); the gateway hands unknown
fields on. Each word that it says is one o200k token. `python -m tests.exact.provider PORT` serves; `Provider` runs it.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import httptools
import uvloop

from tests.processes import HOST, Process, clean_environment, free_port

# Each is one token of o200k_base with a space before it: `test_provider` counts them.
WORDS = (
    *("apple", "river", "stone", "cloud", "green", "house", "light", "music", "paper", "table", "water", "night"),
    *("world", "great", "small", "happy", "quick", "brown", "summer", "winter", "garden", "market", "simple"),
    *("strong", "bridge", "window", "silver", "orange", "purple", "yellow"),
)
_RING = [f" {word}" for word in random.Random(1).choices(WORDS, k=1000)]
# As OpenAI documents it: three tokens around each message and one for its role, three before the answer.
PER_MESSAGE, PRIMING = 4, 3


@dataclass
class Script:
    """`tokens`: how many words it would say if nothing bounds it, `burst` at a time with `pace` seconds between.

    `fail`: model there → status. `cut`: after so many tokens it breaks off. `usage` False: it sends none.
    """

    tokens: int = 3
    pace: float = 0.0
    burst: int = 1
    wait: float = 0.0
    prompt: int | None = None
    cached: int = 0
    cut: int | None = None
    usage: bool = True
    fail: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """What the provider says of a request. `written`: tokens handed to the socket. `end`: whole, cut, lost or error."""

    id: str
    marker: str
    model: str
    most: int | None
    prompt: int
    cached: int
    begun: float
    written: int = 0
    end: str = ""
    status: int = 200
    ended: float = 0.0


def said(start: int, count: int) -> str:
    ring = len(_RING)
    return "".join(_RING[place % ring] for place in range(start, start + count))


def prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """Of messages that are made of `WORDS`."""
    return sum(message["content"].count(" ") + PER_MESSAGE for message in messages) + PRIMING


class _Answer:
    """One request being answered, by timers: hundreds of tasks would cost more."""

    def __init__(self, connection: "_Connection", body: dict[str, Any], entry: Entry) -> None:
        self.entry = entry
        self._connection = connection
        self._script = Script(**body.get("exact", {}))
        if self._script.prompt is not None:
            entry.prompt = self._script.prompt
        entry.cached = min(self._script.cached, entry.prompt)
        self._tokens = self._script.tokens if entry.most is None else min(self._script.tokens, entry.most)
        self._finish = "stop" if self._tokens == self._script.tokens else "length"
        self._stream = bool(body.get("stream"))
        self._usage = self._script.usage and bool((body.get("stream_options") or {}).get("include_usage"))
        self._start = random.randrange(len(_RING))
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._script.wait, self._begin)

    def lose(self) -> None:
        """The other side has closed the connection."""
        self._timer.cancel()
        self._end("lost")

    def _begin(self) -> None:
        status = self._script.fail.get(self.entry.model)
        if status is not None:
            self.entry.status = status
            error = {"message": "It fails as it was told.", "type": "server_error", "param": None, "code": None}
            self._send_whole(status, {"error": error})
            self._end("error")
        elif self._stream:
            self._connection.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._piece()
        else:
            self._plain()

    def _plain(self) -> None:
        message = {"role": "assistant", "content": said(self._start, self._tokens)}
        choice = {"index": 0, "message": message, "finish_reason": self._finish, "logprobs": None}
        answer = {**self._head("chat.completion"), "choices": [choice]}
        self.entry.written = self._tokens
        self._send_whole(200, {**answer, "usage": self._counted()} if self._script.usage else answer)
        self._end("whole")

    def _send_whole(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 %d Said\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._connection.write(head % (status, len(body)) + body)

    def _piece(self) -> None:
        """The next words; after the last ones, the end."""
        script, entry = self._script, self.entry
        most = self._tokens if script.cut is None else min(self._tokens, script.cut)
        count = min(script.burst, most - entry.written)
        if count:
            text = said(self._start + entry.written, count)
            self._event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
            entry.written += count
        if entry.written < most:
            self._timer = self._loop.call_later(script.pace * random.uniform(0.5, 1.5), self._piece)
        elif script.cut is not None and script.cut < self._tokens:
            self._end("cut")
            self._connection.hang_up()
        else:
            self._last()

    def _last(self) -> None:
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": self._finish}]})
        if self._usage:
            self._event({"choices": [], "usage": self._counted()})
        self._connection.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        self._end("whole")

    def _event(self, content: dict[str, Any]) -> None:
        data = b"data: %b\n\n" % json.dumps({**self._head("chat.completion.chunk"), **content}).encode()
        self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.entry.id, "object": kind, "created": int(self.entry.begun), "model": self.entry.model}

    def _counted(self) -> dict[str, Any]:
        prompt, completion = self.entry.prompt, self.entry.written
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {**counts, "prompt_tokens_details": {"cached_tokens": self.entry.cached}}

    def _end(self, end: str) -> None:
        self.entry.end, self.entry.ended = end, time.time()
        self._connection.answer = None


class _Connection(asyncio.Protocol):
    """`httptools` calls the `on_…` methods."""

    def __init__(self, account: list[Entry]) -> None:
        self._account = account
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._target, self._body = b"", bytearray()
        self.answer: _Answer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.answer is not None:
            self.answer.lose()

    def on_message_begin(self) -> None:
        self._target, self._body = b"", bytearray()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._target == b"/account":
            body = json.dumps([asdict(entry) for entry in self._account]).encode()
            self.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            self._transport.close()
            return
        if self._target == b"/v1/models":  # whoever asks whether it is there
            body = b'{"object":"list","data":[]}'
            self.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            return
        asked = json.loads(self._body)
        most = asked.get("max_completion_tokens", asked.get("max_tokens"))
        name, model, prompt = f"chatcmpl-{len(self._account)}", asked["model"], prompt_tokens(asked["messages"])
        entry = Entry(name, asked.get("user", ""), model, most, prompt, 0, time.time())
        self._account.append(entry)
        self.answer = _Answer(self, asked, entry)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def hang_up(self) -> None:
        self._transport.close()


class Provider:
    """The process. Use it in `with`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.base_url = f"http://{HOST}:{self.port}/v1"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.exact.provider", str(self.port)]
        self._process = Process(command, log=self._folder / "provider.log", env=clean_environment(), cwd=self._folder)
        self._process.until_ready(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            self.account()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def account(self) -> list[Entry]:
        with urlopen(f"http://{HOST}:{self.port}/account", timeout=30) as answer:
            return [Entry(**entry) for entry in json.load(answer)]


async def serve(port: int) -> None:
    account: list[Entry] = []
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(account), HOST, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
