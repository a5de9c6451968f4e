"""What must come out of a stream or an answer of OpenAI's chat API: worked out without the code that is tested.

Only Python's own `json` reads here, and events are parted by the rules of the SSE standard.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from proxy.formats.canonical import Usage

# USD per million tokens
INPUT, CACHED, OUTPUT = Decimal(1), Decimal("0.5"), Decimal(2)
_decoder = json.JSONDecoder(strict=False)
_SPACE = " \t\r\n"


@dataclass
class Expected:
    """`usage`: None where it must be counted. `said`: whether the model said anything at all."""

    body: bytes
    usage: Usage | None
    priced: int = 0  # how often a price was put in


def stream(body: bytes, model: str, *, asked: bool) -> Expected:
    """A whole stream. `asked`: the client wants the usage chunk."""
    out, usage, other, priced = b"", None, None, 0
    for raw, data in events(body):
        if data is None:
            out += raw
        elif data.startswith("[DONE]"):
            out += raw
            break
        else:
            chunk = json.loads(data)
            found = tokens(chunk.get("usage"))
            usage = found or usage
            priced += found is not None
            other = tokens((chunk.get("x_groq") or {}).get("usage")) or other
            if asked or chunk.get("choices") or chunk.get("usage") is None:
                out += raw.replace(data.encode(), edited(data, model).encode(), 1)
    else:  # it ended without: clients wait for one
        out += b"" if out.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
        out += b"data: [DONE]\n\n"
    return Expected(out, usage or other, priced)


def answer(body: bytes, model: str) -> Expected:
    text = body.decode()
    return Expected(edited(text, model).encode(), tokens(json.loads(text).get("usage")))


def events(body: bytes) -> Iterator[tuple[bytes, str | None]]:
    """The raw bytes of each event, and its data; None where it has none."""
    raw: list[bytes] = []
    for line in body.splitlines(keepends=True):
        raw.append(line)
        if not line.strip(b"\r\n"):
            yield b"".join(raw), _data(raw)
            raw = []
    if raw:
        yield b"".join(raw), _data(raw)


def _data(lines: list[bytes]) -> str | None:
    found = [line[5:].strip().decode() for line in lines if line.startswith(b"data:")]
    return "\n".join(found) or None


def tokens(usage: Mapping[str, Any] | None) -> Usage | None:
    """Prompt with cached, completion with reasoning: what a provider leaves out of them is in its total."""
    if not usage or usage.get("completion_tokens") is None:
        return None
    prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage["completion_tokens"])
    in_, out = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    missing = (usage.get("total_tokens") or 0) - prompt - completion
    if missing > 0 and missing == in_.get("audio_tokens"):
        prompt += missing
    elif missing > 0:
        completion += missing
    names = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
    cached = in_.get("cached_tokens") or next((usage[name] for name in names if usage.get(name)), 0)
    written = in_.get("cache_write_tokens") or usage.get("cache_creation_input_tokens") or 0
    usage = Usage(prompt, completion, cached, written, out.get("reasoning_tokens") or 0)
    usage.audio_in, usage.audio_out = in_.get("audio_tokens") or 0, out.get("audio_tokens") or 0
    return usage if prompt + completion else None


def cost(usage: Usage) -> Decimal:
    """USD. Cache writes have no price of their own here."""
    cached = min(usage.cached, usage.prompt)
    return ((usage.prompt - cached) * INPUT + cached * CACHED + usage.completion * OUTPUT) / 1_000_000


def gains(usage: Usage) -> dict[str, str]:
    cached = min(usage.cached, usage.prompt)  # some vendors count more
    saved = cached * (INPUT - CACHED) / 1_000_000
    return {"cached_tokens": str(cached), "cost": _plain(cost(usage)), "cache_discount": _plain(saved)}


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f") if number else "0"


def edited(text: str, model: str) -> str:
    """The object's text with the catalog's model and the price in it, every other character as it was."""
    parsed = json.loads(text)
    values = {"model": json.dumps(model, ensure_ascii=False)} if parsed.get("model") is not None else {}
    if usage := tokens(parsed.get("usage")):
        start, end = places(text)["usage"]
        values["usage"] = _with_gains(text[start:end], gains(usage))
    return replaced(text, values)


def _with_gains(text: str, more: Mapping[str, str]) -> str:
    there = json.loads(text)
    text = replaced(text, {name: value for name, value in more.items() if name in there})
    fresh = "".join(f',"{name}":{value}' for name, value in more.items() if name not in there)
    end = max(end for _, end in places(text).values())
    return text[:end] + fresh + text[end:]


def replaced(text: str, values: Mapping[str, str]) -> str:
    for name, (start, end) in sorted(places(text).items(), key=lambda place: -place[1][0]):
        if name in values:
            text = text[:start] + values[name] + text[end:]
    return text


def places(text: str) -> dict[str, tuple[int, int]]:
    """Where the value of each member of an object starts and ends."""
    found: dict[str, tuple[int, int]] = {}
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = _decoder.raw_decode(text, at)
        start = _skip(text, text.index(":", at) + 1)
        _, end = _decoder.raw_decode(text, start)
        found[name] = (start, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
