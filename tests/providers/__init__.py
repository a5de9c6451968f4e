"""Scripted providers: one server that speaks four wire formats as their vendors do, and is as strict as they are.

`Providers` listens on a real socket. The model's name chooses what it says (`scenario.MODELS`): `text`, `tools`,
`thinking`, `error-429` … A request that the vendor would refuse gets the vendor's 400.
Callers: `tests/sdk`, `tests/clients/run.py`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.providers import anthropic_messages, gemini, openai_chat, openai_responses, scenario
from tests.providers.scenario import Asked, Refused, Said
from tests.upstreams import SSE_HEADERS, Received, Reply, Upstream, json_reply

KEY = "sk-upstream"
DIALECTS = ("chat", "responses", "messages", "gemini")
_GEMINI = re.compile(r"/v1(?:beta)?/models/([^/:]+):(generateContent|streamGenerateContent|countTokens)")


@dataclass(frozen=True)
class _Endpoint:
    read: Callable[[], Asked]
    plain: Callable[[Asked, Said], dict[str, Any]]
    stream: Callable[[Asked, Said], list[bytes]]
    error: Callable[[Refused], dict[str, Any]]
    keys: tuple[str | None, ...]  # as which the caller may show who it is
    counted: Callable[[Asked], dict[str, Any]] | None = None


class Providers(Upstream):
    """Use it in `with`. `asked` holds the requests it found without fault, `refused` what it said of the others."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.root = self.base_url.removesuffix("/v1")
        self.asked: list[Asked] = []
        self.refused: list[Refused] = []

    def forget(self) -> None:
        self.requests.clear()
        self.asked.clear()
        self.refused.clear()

    def says(self, asked: Asked) -> Said:
        """What it answers with; for whoever has another script."""
        return scenario.answer(asked)

    def _answer(self, received: Received) -> Reply:
        endpoint = _endpoint(received)
        if endpoint is None:
            return json_reply({"error": {"message": f"Nothing at {received.target}", "type": "not_found"}}, 404)
        try:
            if KEY not in endpoint.keys:
                raise Refused(401, scenario.ERRORS[401])
            asked = endpoint.read()
            self.asked.append(asked)
            if endpoint.counted:
                return json_reply(endpoint.counted(asked))
            return _said(endpoint, asked, self.says(asked))
        except Refused as refused:
            self.refused.append(refused)
            return _refusal(endpoint, refused)


def _said(endpoint: _Endpoint, asked: Asked, said: Said) -> Reply:
    if not asked.stream:
        return json_reply(endpoint.plain(asked, said), headers={"x-request-id": "req_scripted"})
    *events, last = endpoint.stream(asked, said)
    headers = {**SSE_HEADERS, "x-request-id": "req_scripted"}
    if said.end == "whole":
        return Reply(scenario.split_bytes(b"".join([*events, last])), headers=headers)
    # The bad end comes by itself, a moment after the rest, which has then been passed on.
    return Reply([b"".join(events), last], headers=headers, pause=_MOMENT, end="cut" if said.end == "cut" else "whole")


_MOMENT = 0.02  # seconds


def _refusal(endpoint: _Endpoint, refused: Refused) -> Reply:
    wait = {"retry-after": scenario.RETRY_AFTER} if refused.status in (429, 529) else {}
    return json_reply(endpoint.error(refused), refused.status, wait)


def _endpoint(received: Received) -> _Endpoint | None:
    headers = received.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    match received.path:
        case "/v1/chat/completions":
            return _openai(openai_chat, received, bearer)
        case "/v1/responses":
            return _openai(openai_responses, received, bearer)
        case "/v1/messages" | "/v1/messages/count_tokens":
            return _anthropic(received, bearer)
    found = _GEMINI.fullmatch(received.path)
    return _gemini(received, found[1], found[2]) if found else None


def _json(received: Received) -> dict[str, Any]:
    try:
        body = json.loads(received.body)
    except ValueError as fault:
        raise Refused.request(f"We could not parse the JSON body of your request: {fault}") from fault
    if not isinstance(body, dict):
        raise Refused.request("The body of the request is no JSON object")
    return body


def _openai(dialect: Any, received: Received, bearer: str) -> _Endpoint:
    return _Endpoint(lambda: dialect.read(_json(received)), dialect.plain, dialect.stream, dialect.error, (bearer,))


def _anthropic(received: Received, bearer: str) -> _Endpoint:
    count = received.path.endswith("/count_tokens")
    beta = "beta" in parse_qs(urlsplit(received.target).query) or "anthropic-beta" in received.headers

    def read() -> Asked:
        if "anthropic-version" not in received.headers:
            raise Refused.request("anthropic-version: header is required")
        return anthropic_messages.read(_json(received), beta=beta, count=count)

    return _Endpoint(
        read,
        anthropic_messages.plain,
        anthropic_messages.stream,
        anthropic_messages.error,
        (received.headers.get("x-api-key"), bearer),
        anthropic_messages.counted if count else None,
    )


def _gemini(received: Received, model: str, method: str) -> _Endpoint:
    query = parse_qs(urlsplit(received.target).query)
    frame = gemini.sse if query.get("alt") == ["sse"] else gemini.array

    def read() -> Asked:
        body = _json(received)
        if method == "countTokens":
            body = body.get("generateContentRequest", body)
            body.pop("model", None)
        return gemini.read(body, model=model, stream=method == "streamGenerateContent")

    return _Endpoint(
        read,
        gemini.plain,
        lambda asked, said: frame(gemini.stream(asked, said)),
        gemini.error,
        (received.headers.get("x-goog-api-key"), *query.get("key", ())),
        gemini.counted if method == "countTokens" else None,
    )
