"""What holds for every answer of the gateway, whoever asked and whatever the provider sent: judged from outside.

Only Python's own `json` reads here, and events are parted by the rules of the SSE standard.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from proxy.usage import Record

_ENDS = re.compile(r"\r\n|\n|\r")
_REFUSALS = frozenset({400, 401, 403, 404, 405, 406, 408, 411, 413, 414, 415, 422, 429, 431, 451, 502, 503, 504})
_GOODBYES = {"responses": {"response.completed", "response.incomplete"}, "messages": {"message_stop"}}
_MOST = 2**31 - 1
_SHAPES = {"chat": "choices", "completions": "choices", "responses": "output", "messages": "content", "gemini": ""}


def blocks(data: bytes) -> Iterator[tuple[str, str]]:
    """The events of a stream, each with its name and its data."""
    name = ""
    lines: list[str] = []
    for line in [*_ENDS.split(data.decode(errors="replace").removeprefix("\ufeff")), ""]:
        if not line:
            if lines:
                yield name, "\n".join(lines)
            name, lines = "", []
        elif line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            name = line[6:].strip()


def values(data: bytes) -> Iterator[Any]:
    """What of it is JSON, and "[DONE]". An event that does not say its type has it from its name."""
    for name, text in list(blocks(data)) or [("", data.decode(errors="replace"))]:
        if text.strip().startswith("[DONE]"):
            yield "[DONE]"
            continue
        try:
            value = json.loads(text, strict=False, parse_int=float)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and not isinstance(value.get("type"), str):
            value["type"] = name
        yield from (one for one in (value if isinstance(value, list) else [value]) if one != "[DONE]")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def says_goodbye(form: str, value: Any) -> bool:
    """Whether this event ends a stream as whole, and nothing else does."""
    if form in {"chat", "completions"}:
        return bool(value == "[DONE]")
    return isinstance(value, dict) and str(value.get("type")) in _GOODBYES.get(form, ())


def may_be_whole(form: str, data: bytes) -> bool:
    """Whether anything in a provider's stream says that its answer came to an end."""
    return any(says_goodbye(form, value) or (isinstance(value, dict) and _ends(form, value)) for value in values(data))


def _ends(form: str, value: dict[str, Any]) -> bool:
    if form == "messages":
        delta = value.get("delta")
        return isinstance(delta, dict) and bool(delta.get("stop_reason"))
    if form == "gemini":
        blocked = value.get("promptFeedback")
        ended = any(one.get("finishReason") or one.get("finish_reason") for one in _dicts(value.get("candidates")))
        return ended or bool(isinstance(blocked, dict) and blocked.get("blockReason"))
    return form != "responses" and any(one.get("finish_reason") for one in _dicts(value.get("choices")))


# --- answers ---------------------------------------------------------------------------------------------------------


def check_refusal(form: str, status: int, body: bytes) -> dict[str, Any]:
    """An error in the endpoint's own shape. Gives it."""
    assert status in _REFUSALS, f"{status}: {body[:300]!r}"
    found = json.loads(body)
    error = found["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    if form == "messages":
        assert set(found) == {"type", "error", "request_id"}, found
        assert (found["type"], set(error) >= {"type", "message"}) == ("error", True), found
    elif form == "gemini":
        assert error["code"] == status, found
        assert isinstance(error["status"], str), found
    else:
        assert set(error) == {"message", "type", "param", "code"}, found
    return dict(error)


def check_whole(form: str, body: bytes, *, translated: bool) -> None:
    """A plain answer: an object; where the gateway wrote it, strict JSON in the format's shape."""
    text = body.decode("utf-8-sig") if translated else body.decode("utf-8-sig", errors="replace")
    found = json.loads(text, strict=False, parse_int=float)
    assert isinstance(found, dict)
    if translated:
        _strict(body)
        shape = _SHAPES[form]
        assert not shape or isinstance(found[shape], list), body[:300]


def _strict(text: bytes | str) -> Any:
    """JSON as the standard has it: without NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in JSON")

    found = json.loads(text, parse_constant=refuse, parse_int=float)
    return found


def check_stream(form: str, body: bytes, *, whole: bool, array: bool, translated: bool) -> None:
    """A stream that the client must be able to tell for whole or broken."""
    if array:
        found = json.loads(body.decode(errors="replace"), strict=False)
        assert isinstance(found, list), body[:300]
    else:
        found = list(values(body))
    failed: list[Any] = [value for value in found if isinstance(value, dict) and _is_error(value)]
    failed += [name for name, _ in blocks(body) if name in {"error", "response.failed"}]
    if whole:
        assert any(says_goodbye(form, value) or (isinstance(value, dict) and _ends(form, value)) for value in found)
        assert not (translated and failed), failed
    else:
        assert failed, f"no error in {body[-300:]!r}"
        assert not any(says_goodbye(form, value) for value in found), body[-300:]
    if translated and not array:
        _check_events(form, body)


def _is_error(value: dict[str, Any]) -> bool:
    return str(value.get("type")) in {"error", "response.failed"} or bool(value.get("error"))


def _check_events(form: str, body: bytes) -> None:
    """What the gateway wrote itself, one event after another."""
    found = [(name, _strict(text)) for name, text in blocks(body) if not text.startswith("[DONE]")]
    if form == "messages":
        _check_blocks([value for _, value in found])
    if form == "responses":
        assert [value["sequence_number"] for _, value in found] == list(range(len(found)))
    if form in {"messages", "responses"}:
        assert all(name == value["type"] for name, value in found)


def _check_blocks(found: list[dict[str, Any]]) -> None:
    """Content blocks of Messages: one after another, each begun, gone on with and ended."""
    count, open_ = 0, False
    for value in found:
        if value["type"] == "content_block_start":
            assert (value["index"], open_) == (count, False), value
            count, open_ = count + 1, True
        elif value["type"] in {"content_block_delta", "content_block_stop"}:
            assert (value["index"], open_) == (count - 1, True), value
            open_ = value["type"] == "content_block_delta"
        elif value["type"] in {"message_delta", "message_stop"}:
            assert not open_, value


# --- the row ---------------------------------------------------------------------------------------------------------


def check_row(row: Record, status: int) -> None:
    """What the database takes: numbers that are not negative, text in UTF-8 that its column has room for."""
    assert row.status == status
    counts = [row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.cache_write_tokens, row.reasoning_tokens]
    assert all(type(count) is int and count >= 0 for count in counts), counts
    assert row.cost is None or row.cost >= 0
    assert (row.cost or 0) < 10**24, "more than the column holds"
    texts = [row.requested_model, row.error_code, row.client, row.losses, row.alias, row.model]
    for text, most in zip(texts, (200, 60, 100, 1000, 200, 200), strict=True):
        text.encode()
        assert len(text) <= most, text
