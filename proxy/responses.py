"""What clients ask of held responses: `GET /v1/responses/{id}`, its input items, to cancel or to delete it.

`asgi` mounts them; `held` has what they answer with. https://platform.openai.com/docs/api-reference/responses
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from accounts.keys import Key
from proxy import errors, held, ingress, replies, request_ids
from proxy.background import Tables
from proxy.errors import Refusal
from proxy.held import Entry, Held
from proxy.ingress import Receive, Scope, Send

logger = logging.getLogger(__name__)

PREFIX = "/v1/responses/"
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_PAGE, _LARGEST_PAGE = 20, 100  # items

Query = Mapping[str, str]
Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]
Work = Callable[[Key, str, Query], Awaitable[bytes]]


class HeldResponses:
    """`at` is the table of what is under `PREFIX`."""

    def __init__(self, tables: Tables, kept: Held) -> None:
        self._tables = tables
        self._held = kept

    def at(self, path: str) -> dict[str, Endpoint]:
        """The endpoints at a path, by their method; empty: there is nothing."""
        works: dict[str, Work] = {}
        match path.removeprefix(PREFIX).split("/"):
            case [str(name)] if name:
                works = {"GET": self._retrieve, "DELETE": self._delete}
            case [str(name), "input_items"] if name:
                works = {"GET": self._input_items}
            case [str(name), "cancel"] if name:
                works = {"POST": self._cancel}
            case _:
                return {}
        return {method: partial(self._answer, work, name) for method, work in works.items()}

    async def _answer(self, work: Work, response_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_ids.new()
        headers = replies.common(request_id, scope)
        try:
            body = await self._run(work, response_id, scope, request_id)
        except Refusal as refusal:
            headers = [*replies.error_headers(refusal), *headers]
            await replies.answer(send, refusal.status, headers, replies.error_body(refusal))
        else:
            await replies.answer(send, 200, [*_HEADERS, *headers], body)

    async def _run(self, work: Work, response_id: str, scope: Scope, request_id: str) -> bytes:
        try:
            key = ingress.authenticate(scope, self._tables)
            ingress.check_usable(key, scope)
            query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
            return await work(key, response_id, query)
        except Refusal:
            raise
        except Exception as error:  # a bug of ours ends here: the client gets a 500, the log the traceback
            logger.exception("request %s failed", request_id)
            raise errors.Internal from error

    async def _find(self, key: Key, response_id: str) -> Entry:
        entry = await self._held.get(key.id, response_id)
        if entry is None:
            raise held.not_held(response_id)
        return entry

    async def _retrieve(self, key: Key, response_id: str, query: Query) -> bytes:
        if query.get("stream", "").lower() in {"true", "1"}:
            words = "A held response cannot be streamed again: ask for it without 'stream'."
            raise errors.BadRequest(words, param="stream", code="unsupported_parameter", retry=False)
        return (await self._find(key, response_id)).response

    async def _delete(self, key: Key, response_id: str, query: Query) -> bytes:
        if not await self._held.delete(key.id, response_id):
            raise held.not_held(response_id)
        return msgspec.json.encode({"id": response_id, "object": "response.deleted", "deleted": True})

    async def _cancel(self, key: Key, response_id: str, query: Query) -> bytes:
        """What is held has ended. To cancel a background response again changes nothing; another never could be."""
        entry = await self._find(key, response_id)
        if not held.is_background(entry):
            words = "Only a response that was made with 'background': true can be cancelled, and this one has ended."
            raise errors.BadRequest(words, param="response_id", code="invalid_value", retry=False)
        return entry.response

    async def _input_items(self, key: Key, response_id: str, query: Query) -> bytes:
        """All that the response was made from, the conversation before it too, in pages."""
        entry = await self._find(key, response_id)
        newest_first, limit = _order(query), _limit(query)
        before = await self._held.chain(key.id, entry.previous) if entry.previous else []
        said = [pair for one in before or [] for pair in held.named_items(one)]
        named = list(dict([*said, *held.named_input(entry)]).items())  # an ID that came twice would page for ever
        if newest_first:
            named.reverse()
        start = _start([name for name, _ in named], query)
        page = [_shown(name, raw) for name, raw in named[start : start + limit]]
        listed = {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + limit < len(named),
        }
        return msgspec.json.encode(listed)


def _order(query: Query) -> bool:
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise _wrong("order", "asc or desc")
    return order == "desc"


def _limit(query: Query) -> int:
    text = query.get("limit", str(_PAGE))
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= _LARGEST_PAGE):
        raise _wrong("limit", f"a whole number from 1 to {_LARGEST_PAGE}")
    return int(text)


def _start(names: list[str], query: Query) -> int:
    after = query.get("after")
    if after is None:
        return 0
    if after not in names:
        raise _wrong("after", "the ID of an item of this list")
    return names.index(after) + 1


def _wrong(param: str, expected: str) -> errors.BadRequest:
    return errors.BadRequest(f"Invalid '{param}': expected {expected}.", param=param, code="invalid_value", retry=False)


def _shown(name: str, raw: bytes) -> dict[str, Any]:
    """An item as OpenAI lists it: with its ID, and messages written out, however short the client wrote them."""
    item: dict[str, Any] = {**msgspec.json.decode(raw), "id": name}
    if "role" in item:
        item["type"] = "message"
        if isinstance(text := item.get("content"), str):
            said = item["role"] == "assistant"
            part = {"type": "output_text", "text": text, "annotations": []}
            item["content"] = [part if said else {"type": "input_text", "text": text}]
    if item.get("type") in held.PREFIXES:
        item.setdefault("status", "completed")
    return item
