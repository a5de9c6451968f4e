"""What goes wrong with JSON, bytes and event streams on their way, chosen by a `Random`: same seed, same harm."""

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Path = tuple[Any, ...]  # from a value's container to it: the container, and the name or place in it

_ODD_STRINGS = [
    "",
    " ",
    "\x00",
    "a\r\nset-cookie: x=1",
    "\ud800",
    "\udc00\ud800",
    "\U0001f600",
    "\u2028",
    "x" * 300,
    "..",
    "%2F",
    "../../v1/files",
    "?a=b#c",
    "m",
    "null",
    "true",
    "-1",
    "1e400",
    "kodna1.",
    "kodna1.!!!",
    "kodna1.WzEsMl0",
    "kodna1.WyJvcGVuYWlfY2hhdCIsImEiXQ",
    "data:image/png;base64,",
    "data:,x",
    "data:;;;;base64,####",
    "file:///etc/passwd",
    "application/json",
    "assistant",
    "tool",
    "developer",
    "user",
    "model",
    "function",
    "ephemeral",
    "{}",
    "[",
    '{"a":',
    "text",
    "thinking",
    "tool_use",
    "tool_result",
    "function_call",
    "function_call_output",
    "reasoning",
    "message",
    "item_reference",
    "input_image",
    "image_url",
    "input_audio",
    "custom",
    "namespace",
    "additional_tools",
    "server_tool_use",
    "json_schema",
    "STOP",
    "end_turn",
    "stop",
    "tool_calls",
    "error",
    "refusal",
    "redacted_thinking",
    "resp_1",
    "msg_1",
]
_ODD_NUMBERS = [0, 1, -1, 2, 1.5, -0.0, 1e308, 5e-324, 10**18, 2**63, 2**64, 10**30, -(10**30), 1e22]
_NOT_JSON = [float("nan"), float("inf"), float("-inf")]
_NAMES = [
    "type",
    "role",
    "content",
    "text",
    "id",
    "name",
    "arguments",
    "input",
    "parts",
    "thinking",
    "signature",
    "usage",
    "tool_calls",
    "function",
    "index",
    "delta",
    "error",
    "message",
    "cache_control",
    "strict",
    "parameters",
    "model",
    "",
    "\x00",
    "a\r\nb: c",
    "é",
    "\ud800",
    "x" * 3000,
    "a, b",
    "__proto__",
]


def _copy(value: Any) -> Any:
    """What is nested too deeply for that is shared: nothing deep in it is ever changed."""
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return value


def leaf(random: Random) -> Any:
    kind = random.randrange(12)
    if kind < 4:
        return random.choice(_ODD_STRINGS)
    if kind < 7:
        return random.choice(_ODD_NUMBERS)
    if kind == 7 and not random.randrange(4):
        return random.choice(_NOT_JSON)
    return random.choice([None, True, False, [], {}, [[]], [{}], {"type": "text"}, [None], [1], {"": {}}])


def nested(random: Random, value: Any) -> Any:
    for _ in range(random.choice([1, 1, 1, 2, 2, 5, 60, 300])):
        value = [value] if random.random() < 0.5 else {random.choice(["content", "a", "parts", "properties"]): value}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every name or place in it, near the root as well as deep."""
    waiting = [value] if isinstance(value, dict | list) else []
    while waiting:
        found = waiting.pop()
        for name in list(found) if isinstance(found, dict) else range(len(found)):
            yield found, name
            if isinstance(found[name], dict | list):
                waiting.append(found[name])


def _string(random: Random, text: str) -> str:
    at = random.randint(0, len(text))
    return text[:at] + random.choice(_ODD_STRINGS) + text[at + random.randrange(3) :]


def _replace(random: Random, found: Any, name: Any) -> None:
    old = found[name]
    if isinstance(old, str) and random.random() < 0.3:
        found[name] = _string(random, old)
    elif isinstance(old, int | float) and random.random() < 0.5:
        found[name] = random.choice(_ODD_NUMBERS)
    else:
        found[name] = leaf(random)


def _delete(random: Random, found: Any, name: Any) -> None:
    del found[name]


def _again(random: Random, found: Any, name: Any) -> None:
    if isinstance(found, list):
        found[name:name] = [_copy(found[name]) for _ in range(random.choice([1, 2, 30]))]
    else:
        found[random.choice(_NAMES)] = _copy(found[name])


def _wrap(random: Random, found: Any, name: Any) -> None:
    found[name] = nested(random, found[name])


def _add(random: Random, found: Any, name: Any) -> None:
    if isinstance(found, list):
        found.insert(random.randint(0, len(found)), leaf(random))
    else:
        found[random.choice(_NAMES)] = leaf(random)


def _shuffle(random: Random, found: Any, name: Any) -> None:
    if isinstance(found, list):
        random.shuffle(found)
    else:
        other = random.choice(list(found))
        found[name], found[other] = found[other], found[name]


_HARMS: list[Callable[[Random, Any, Any], None]] = [_replace] * 5 + [_delete, _delete, _again, _wrap, _add, _shuffle]


_MOST = 2000  # places of a value: what doubles must not go on doubling


def mutated(random: Random, value: Any, donors: list[Any], times: int) -> Any:
    """A copy with so much harm done to it. `donors`: other values, whose pieces may come to stand in this one."""
    value = _copy(value)
    for _ in range(times):
        places = list(_places(value))
        if not places:
            return leaf(random)
        if len(places) > _MOST:
            return value
        found, name = random.choice(places)
        if random.random() < 0.12 and donors:
            donor = random.choice(donors)
            theirs, at = random.choice(list(_places(donor)) or [([donor], 0)])
            found[name] = _copy(theirs[at])
        else:
            random.choice(_HARMS)(random, found, name)
    return value


def written(value: Any) -> bytes:
    """JSON as Python writes it: with NaN, and halves of surrogate pairs as escapes."""
    return json.dumps(value).encode()


_BITS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"\x00",
    b"\xff",
    b"\xf0\x9f",
    b"\xef\xbb\xbf",
    b"NaN",
    b"Infinity",
    b"-",
    b"1e400",
    b"9" * 40,
    b"9" * 5000,
    b"null",
    b"true",
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n",
    b" ",
    b"data: ",
    b"data: [DONE]\n\n",
    b"event: x\n",
    b": c\n\n",
    b"//",
    b'"model":"m",',
    b'"stream":true,',
    b"[" * 2000,
    b'{"a":' * 1100,
    b"data: {}\n\n",
    b'data: {"error":{"message":"x"}}\n\n',
    b'"a":1,"a":2,',
]


def harmed(random: Random, data: bytes, times: int) -> bytes:
    """Bytes cut out, put in, flipped."""
    for _ in range(times):
        at, length = random.randint(0, len(data)), random.choice([0, 0, 1, 3, 9, 60])
        if random.random() < 0.3 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
        else:
            data = data[:at] + random.choice(_BITS) + data[at + length :]
    return data


def twice_named(random: Random, data: bytes) -> bytes:
    """An object in which a name stands twice."""
    return data.replace(b"{", b'{"model":"m","messages":[],"a":1,"a":2,', 1) if random.random() < 0.5 else data + data


def cut_anywhere(random: Random, data: bytes) -> list[bytes]:
    marks = sorted(random.sample(range(1, len(data)), min(random.choice([0, 0, 1, 2, 7]), max(0, len(data) - 1))))
    ends = [*marks, len(data)]
    return [data[start:end] for start, end in zip([0, *marks], ends, strict=True)]


# --- event streams ---------------------------------------------------------------------------------------------------

Events = list[tuple[str, Any]]  # each with its name ("" for none) and its JSON; text that is none stays text


def shuffled(random: Random, events: Events, others: Events) -> Events:
    """Events that are missing, come twice, out of turn, behind the end, or from somewhere else."""
    events = list(events)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        if not events:
            return events
        at, harm = random.randrange(len(events)), random.randrange(8)
        if harm < 2:
            del events[at]
        elif harm == 2:
            events.insert(at, events[random.randrange(len(events))])
        elif harm == 3:
            to = random.randrange(len(events))
            events[at], events[to] = events[to], events[at]
        elif harm == 4 and others:
            events.insert(at, random.choice(others))
        elif harm == 5:
            events += [random.choice(events + others)]
        elif harm == 6:
            del events[at:]
        else:
            events[at:at] = events[at : at + random.choice([2, 5])] * random.choice([1, 3])
    return events


def framed(random: Random, events: Events, plainly: bool) -> bytes:
    """The events on the wire, in one of the ways in which servers write them."""
    end = "\n" if plainly else random.choice(["\n", "\r\n", "\r"])
    space = " " if plainly else random.choice([" ", " ", "", "  "])
    lines: list[str] = [] if plainly or random.random() < 0.8 else [random.choice([": hi", "retry: 5", "id: 1"]), ""]
    named = plainly or random.random() < 0.9
    for name, value in events:
        text = value if isinstance(value, str) else json.dumps(value)
        if not plainly and not isinstance(value, str) and random.random() < 0.05:
            text = json.dumps(value, indent=1)
        if name and named:
            lines.append(f"event:{space}{name}")
        lines += [f"data:{space}{line}" for line in text.split("\n")]
        lines.append("")
    data = "".join(line + end for line in lines).encode(errors="replace")
    return data if plainly or random.random() < 0.9 else data.removesuffix(end.encode())
