"""Canonical answers as clients of the chat API get them, plain and streamed; both hold the same."""

import copy
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.formats.base import Ask, Error, Losses
from proxy.formats.canonical import (
    CONTENT_FILTER,
    LENGTH,
    REFUSAL,
    STOP,
    STOP_SEQUENCE,
    TOOL_CALLS,
    Answer,
    Choice,
    Citation,
    End,
    Event,
    Failure,
    Finish,
    Media,
    Opaque,
    Part,
    PartDelta,
    PartEnd,
    PartStart,
    Refusal,
    Request,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    Usage,
    UsageSeen,
    play,
    seal,
)
from proxy.formats.openai_chat.answer_reader import read_answer, reader
from proxy.formats.openai_chat.answer_writer import write_answer, writer
from proxy.formats.openai_chat.request_reader import read_request
from proxy.formats.splice import Members

CLAUDE, OWN = "anthropic_messages", "openai_chat"
USAGE = Usage(7, 3, cached=2)


def ask(*, tools: Sequence[Tool] = (), include_usage: bool = False, members: bytes = b"{}") -> Ask:
    request = Request([], tools=list(tools))
    price = {"cost": b"0.5"}
    return Ask("abc", "ours", 7, request, Members(members), lambda _: price, Losses({}), include_usage=include_usage)


def answer(*parts: Part, reason: str = STOP, **more: Any) -> Answer:
    return Answer([Choice(list(parts), reason, **more)])


def plain(found: Answer, wanted: Ask | None = None) -> dict[str, Any]:
    body = write_answer(found, wanted or ask())
    ChatCompletion.model_validate_json(body)
    written: dict[str, Any] = json.loads(body)
    return written


def chunks(events: Iterable[Event], wanted: Ask | None = None) -> list[dict[str, Any]]:
    """The chunks of a stream; the last is what stands for `[DONE]`."""
    out = writer(wanted or ask())
    data = b"".join(out.send(event) for event in events)
    found: list[dict[str, Any]] = []
    for line in data.split(b"\n\n")[:-1]:
        assert line.startswith(b"data: ")
        assert b"\n" not in line
        found.append({"done": True} if line == b"data: [DONE]" else json.loads(line[6:]))
    return found


def deltas(*parts: Part, wanted: Ask | None = None, reason: str = STOP) -> list[dict[str, Any]]:
    """What the chunks of these parts say, between the first chunk and the reason to end."""
    found = chunks(play(answer(*parts, reason=reason)), wanted)
    return [chunk["choices"][0]["delta"] for chunk in found[1:-2]]


FIRST = {"role": "assistant", "content": "", "refusal": None}


def test_it_works() -> None:
    found = Answer([Choice([Text("Hi")], STOP, "end_turn")], "theirs", "their-model", USAGE, "default")
    written = plain(found)
    assert written["usage"].pop("cost") == 0.5
    assert written.pop("usage")["prompt_tokens_details"]["cached_tokens"] == 2
    assert written == {
        "id": "chatcmpl-abc",
        "object": "chat.completion",
        "created": 7,
        "model": "ours",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "service_tier": "default",
        "system_fingerprint": None,
    }


def test_the_sequence_of_chunks() -> None:
    events = [Start("x", "y"), PartStart(0, Text("")), PartDelta(0, "H"), PartDelta(0, "i"), PartEnd(0),
              UsageSeen(USAGE), Finish(STOP, "stop"), End()]  # fmt: skip
    found = chunks(events, ask(include_usage=True))
    common = {"id": "chatcmpl-abc", "object": "chat.completion.chunk", "created": 7, "model": "ours"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**common, "choices": [choice], "usage": None}

    assert found[:-2] == [chunk(FIRST), chunk({"content": "H"}), chunk({"content": "i"}), chunk({}, "stop")]
    usage = found[-2].pop("usage")
    assert found[-2:] == [{**common, "choices": []}, {"done": True}]
    assert (usage["total_tokens"], usage["cost"]) == (10, 0.5)


def test_usage_comes_only_where_it_was_asked_for() -> None:
    found = chunks([Start(), UsageSeen(USAGE), Finish(STOP), End()])
    assert all("usage" not in chunk for chunk in found)
    assert found[-1] == {"done": True}


# --- parts -----------------------------------------------------------------------------------------------------------


def detail(part: str, signature: str, origin: str = CLAUDE, **more: Any) -> dict[str, Any]:
    kind = (
        "anthropic-claude-v1"
        if origin == CLAUDE
        else "google-gemini-v1"
        if origin == "gemini"
        else "openai-responses-v1"
    )
    return {
        "type": f"reasoning.{part}",
        "format": kind,
        "index": 0,
        **more,
        ("signature" if part == "text" else "data"): seal(origin, signature),
    }


PLAIN_DETAIL = {"type": "reasoning.text", "text": "hm", "index": 0}
CITATION = {
    "type": "url_citation",
    "url_citation": {"start_index": 0, "end_index": 2, "title": "X", "url": "https://x"},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
F = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ([Text("Hi"), Text("!")], {"content": "Hi!"}),
        ([], {"content": ""}),
        ([Refusal("No")], {"content": None, "refusal": "No"}),
        (
            [Thinking("hm"), Text("Hi")],
            {"content": "Hi", "reasoning_content": "hm", "reasoning_details": [PLAIN_DETAIL]},
        ),
        (
            [Thinking("hm", signature="s", origin=CLAUDE), Text("Hi")],
            {"content": "Hi", "reasoning_content": "hm", "reasoning_details": [detail("text", "s", text="hm")]},
        ),
        (
            [Thinking(redacted=True, signature="s", origin=CLAUDE), Text("Hi")],
            {"content": "Hi", "reasoning_details": [detail("encrypted", "s")]},
        ),
        (
            [Thinking("hm", summary=True, id="rs_1", signature="s", origin="openai_responses"), Text("Hi")],
            {
                "content": "Hi",
                "reasoning_content": "hm",
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "hm", "index": 0},
                    detail("encrypted", "s", "openai_responses", id="rs_1", index=1),
                ],
            },
        ),
        (
            [Text("Hi", signature="s", origin="gemini")],
            {"content": "Hi", "reasoning_details": [detail("encrypted", "s", "gemini")]},
        ),
        ([ToolCall("c", "f", '{"a":1}')], {"content": None, "tool_calls": [F]}),
        ([ToolCall("c", "f")], {"content": None, "tool_calls": [{**F, "function": {"name": "f", "arguments": "{}"}}]}),
        (
            [ToolCall("c", "f", "x", custom=True)],
            {"content": None, "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
        ),
        (
            [ToolCall("c", "f", '{"a":1}', signature="s", origin="gemini")],
            {
                "content": None,
                "reasoning_details": [detail("encrypted", "s", "gemini", id="c")],
                "tool_calls": [{**F, "extra_content": {"google": {"thought_signature": "s"}}}],
            },
        ),
        ([Media("image", "image/png", "QUJD")], {"content": "", "images": [IMAGE]}),
        (
            [Media("audio", "audio/wav", "QUJD", transcript="Hi")],
            {"content": None, "audio": {"id": "audio_abc", "data": "QUJD", "expires_at": 7, "transcript": "Hi"}},
        ),
        ([Text("Hi", [Citation("https://x", "X", start=0, end=2)])], {"content": "Hi", "annotations": [CITATION]}),
        ([Text("Hi", [Citation("https://x", "X")])], {"content": "Hi", "annotations": [CITATION]}),
    ],
)
def test_parts(parts: list[Part], written: dict[str, Any]) -> None:
    assert plain(answer(*copy.deepcopy(parts)))["choices"][0]["message"] == {
        "role": "assistant",
        "refusal": None,
        **written,
    }
    events = list(play(answer(*parts)))
    assert _joined(chunks(events)) == {"role": "assistant", "refusal": None, **_as_streamed(written)}


def _joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client builds from the chunks: texts run together, calls and details by their index."""
    built: dict[str, Any] = {}
    for chunk in found[:-1]:
        for name, value in chunk["choices"][0]["delta"].items():
            if isinstance(value, str) and name != "role":
                built[name] = (built.get(name) or "") + value
            elif name == "audio":
                built[name] = {**built.get(name, {}), **value}
            elif name in ("tool_calls", "reasoning_details"):
                _join(built.setdefault(name, {}).setdefault(value[0]["index"], {}), value[0])
            elif isinstance(value, list):
                built[name] = [*built.get(name, []), *value]
            else:
                built[name] = value
    return {
        name: list(value.values()) if name in ("tool_calls", "reasoning_details") else value
        for name, value in built.items()
    }


def _join(known: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _join(known.setdefault(name, {}), value)
        elif name in ("text", "summary", "arguments", "input") and name in known:
            known[name] += value
        else:
            known[name] = value


def _as_streamed(written: dict[str, Any]) -> dict[str, Any]:
    """The same message: in a stream, content is there from the first chunk on, and entries of lists have an index."""
    found = {**written, "content": written.get("content") or ""}
    for name in ("annotations", "images", "tool_calls"):
        if name in found:
            found[name] = [{**each, "index": place} for place, each in enumerate(found[name])]
    return found


def test_citations_count_from_the_first_text() -> None:
    parts = [Text("abc"), Text("Hi", [Citation("https://x", "X", start=0, end=2)])]
    note = {
        "type": "url_citation",
        "url_citation": {"start_index": 3, "end_index": 5, "title": "X", "url": "https://x"},
    }
    assert plain(answer(*parts))["choices"][0]["message"]["annotations"] == [note]
    assert deltas(*parts)[-1] == {"annotations": [{**note, "index": 0}]}


@pytest.mark.parametrize(
    ("part", "loss"),
    [
        (Opaque("server_tool_use", {}, origin=CLAUDE), "answer.server_tool_use"),
        (Media("file", "application/pdf", "QUJD"), "answer.file"),
        (Text("Hi", [Citation(quote="x")]), "answer.citations"),
    ],
)
def test_what_chat_cannot_say_is_named(part: Part, loss: str) -> None:
    for write in (lambda wanted: plain(answer(part), wanted), lambda wanted: chunks(play(answer(part)), wanted)):
        wanted = ask()
        write(wanted)
        assert wanted.losses.names == [loss]


# --- tools of the client's own kinds ---------------------------------------------------------------------------------

CUSTOM = (Tool("f", kind="custom"),)


@pytest.mark.parametrize(
    ("arguments", "text"), [('{"input": "4 + 4"}', "4 + 4"), ("4 + 4", "4 + 4"), ('{"x": 1}', '{"x": 1}')]
)
def test_the_call_of_a_custom_tool_that_the_provider_knew_as_a_function(arguments: str, text: str) -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "f", "input": text}}
    found = plain(answer(ToolCall("c", "f", arguments), reason=TOOL_CALLS), ask(tools=CUSTOM))
    assert found["choices"][0]["message"]["tool_calls"] == [call]
    events = [Start(), PartStart(0, ToolCall("c", "f")), PartDelta(0, arguments[:5]), PartDelta(0, arguments[5:]),
              PartEnd(0), Finish(TOOL_CALLS), End()]  # fmt: skip
    assert _joined(chunks(events, ask(tools=CUSTOM)))["tool_calls"] == [{"index": 0, **call}]


LEGACY = b'{"functions": [{"name": "f"}]}'


def test_clients_of_the_first_chat_api_get_a_function_call() -> None:
    found = plain(answer(ToolCall("c", "f", "{}"), reason=TOOL_CALLS), ask(members=LEGACY))["choices"][0]
    assert found["finish_reason"] == "function_call"
    assert found["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    events = [Start(), PartStart(0, ToolCall("c", "f")), PartDelta(0, "{"), PartDelta(0, "}"), PartEnd(0),
              Finish(TOOL_CALLS), End()]  # fmt: skip
    written = chunks(events, ask(members=LEGACY))
    sent = [chunk["choices"][0]["delta"].get("function_call") for chunk in written[1:-2]]
    assert sent == [{"name": "f", "arguments": ""}, {"arguments": "{"}, {"arguments": "}"}]
    assert written[-2]["choices"][0]["finish_reason"] == "function_call"


def test_a_function_call_can_be_only_one() -> None:
    for write in (plain, lambda found, wanted: chunks(play(found), wanted)):
        wanted = ask(members=LEGACY)
        write(answer(ToolCall("c", "f", "{}"), ToolCall("d", "f", "{}")), wanted)
        assert wanted.losses.names == ["answer.tool_calls"]


def test_parallel_calls_may_interleave() -> None:
    begun = [Start(), PartStart(0, ToolCall("a", "f")), PartStart(1, ToolCall("b", "g"))]
    mixed = [PartDelta(1, "["), PartDelta(0, "{"), PartDelta(1, "]"), PartDelta(0, "}")]
    events = [*begun, *mixed, PartEnd(0), PartEnd(1), Finish(TOOL_CALLS), End()]
    calls = _joined(chunks(events))["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "[]"}]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    events = [Start(), PartStart(0, ToolCall("a", "f")), PartEnd(0), Finish(TOOL_CALLS), End()]
    assert _joined(chunks(events))["tool_calls"][0]["function"]["arguments"] == "{}"


# --- thoughts come back as they were ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        [Thinking("hm", signature="s", origin=CLAUDE), Text("Hi")],
        [Thinking("a", signature="s", origin=CLAUDE), Thinking("b", signature="t", origin=CLAUDE), Text("Hi")],
        [Thinking(redacted=True, signature="s", origin=CLAUDE), Thinking("hm", signature="t", origin=CLAUDE)],
        [Thinking("hm", summary=True, id="rs_1", signature="s", origin="openai_responses"), Text("Hi")],
        [Thinking("hm"), ToolCall("c", "f", "{}", signature="s", origin="gemini"), ToolCall("d", "g", "{}")],
        [Thinking(redacted=True, id="rs_1", signature="s", origin="openai_responses"), ToolCall("c", "f", "{}")],
    ],
)
def test_what_must_come_back_does(parts: list[Part]) -> None:
    """The client sends the message back as it got it, or as it built it from the stream."""
    for found in (plain(answer(*parts))["choices"][0]["message"], _joined(chunks(play(answer(*parts))))):
        body = json.dumps({"messages": [found]}).encode()
        back = read_request(Members(body)).messages[0].parts
        assert [_bare(part) for part in back if part != Text("", at=part.at)] == [_bare(part) for part in parts]


def _bare(part: Part) -> Part:
    bare = copy.copy(part)
    bare.at = ""
    return bare


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "more", "written"),
    [
        (STOP, {"raw_reason": "end_turn"}, {"finish_reason": "stop"}),
        (LENGTH, {"raw_reason": "max_tokens"}, {"finish_reason": "length"}),
        (TOOL_CALLS, {"raw_reason": "tool_use"}, {"finish_reason": "tool_calls"}),
        (REFUSAL, {"raw_reason": "refusal"}, {"finish_reason": "content_filter", "native_finish_reason": "refusal"}),
        (
            CONTENT_FILTER,
            {"raw_reason": "SAFETY"},
            {"finish_reason": "content_filter", "native_finish_reason": "SAFETY"},
        ),
        (
            STOP_SEQUENCE,
            {"raw_reason": "stop_sequence", "stop_sequence": "END"},
            {"finish_reason": "stop", "native_finish_reason": "stop_sequence", "stop_reason": "END"},
        ),
    ],
)
def test_why_it_ended(reason: str, more: dict[str, str], written: dict[str, str]) -> None:
    found = answer(Text("Hi"), reason=reason, **more)
    choice = plain(found)["choices"][0]
    last = chunks(play(found))[-2]["choices"][0]
    for each in (choice, last):
        assert {name: each[name] for name in each if "reason" in name} == written
    assert read_answer(write_answer(found, ask()), "s").choices[0].reason == reason


def test_openais_own_client_joins_all_lists() -> None:
    """Its helper wants an index in each entry, and a function in each call's delta."""
    cited = [Text(name, [Citation("https://x", "X", start=0, end=1)]) for name in "ab"]
    images = [Media("image", "image/png", "QUJD"), Media("image", "image/png", "QUJE")]
    thoughts = [Thinking(), Thinking("hm", summary=True, signature="s", origin="openai_responses"), Thinking("ho")]
    events = list(play(answer(*thoughts, *cited, *images, ToolCall("c", "f", "{}"), reason=TOOL_CALLS)))
    late = next(event for event in events if isinstance(event, PartEnd) and event.index == 7)
    late.signature, late.origin = "sig", "gemini"
    state = ChatCompletionStreamState()
    for chunk in chunks(events)[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    built = state.get_final_completion().choices[0].message.model_dump()
    assert built["content"] == "ab"
    assert [note["url_citation"]["start_index"] for note in built["annotations"]] == [0, 1]
    assert len(built["images"]) == 2
    kinds = ["reasoning.summary", "reasoning.encrypted", "reasoning.text", "reasoning.encrypted"]
    assert [each["type"] for each in built["reasoning_details"]] == kinds
    assert built["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "sig"}}


def test_log_probabilities() -> None:
    tokens = [{"token": "Hi", "logprob": -1.0, "bytes": None, "top_logprobs": []}]
    found = answer(Text("Hi"), logprobs=tokens)
    assert plain(found)["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}
    events = [Start(), PartStart(0, Text("")), PartDelta(0, "Hi", logprobs=tokens), PartEnd(0), Finish(STOP), End()]
    choice = chunks(events)[1]["choices"][0]
    assert (choice["delta"], choice["logprobs"]) == ({"content": "Hi"}, {"content": tokens, "refusal": None})


def test_several_choices_have_their_own_first_chunk() -> None:
    events = [Start(), PartStart(0, Text("b"), 1), PartEnd(0, 1), Finish(STOP, choice=1), Finish(STOP), End()]
    found = [chunk["choices"][0] for chunk in chunks(events)[:-1]]
    assert [(choice["index"], choice["delta"]) for choice in found] == [
        (0, FIRST),
        (1, FIRST),
        (1, {"content": "b"}),
        (1, {}),
        (0, {}),
    ]


def test_half_a_surrogate_pair_passes() -> None:
    found = answer(Text("\ud83d"))
    found.usage = USAGE
    assert json.loads(write_answer(found, ask()))["choices"][0]["message"]["content"] == "\ud83d"
    assert deltas(Text("\ud83d")) == [{"content": "\ud83d"}]


def test_an_error_ends_it() -> None:
    out = writer(ask())
    for sent in (out.send(Failure({"message": "Down", "code": 5})), out.fail(Error(502, "Down", "api_error"))):
        events = sent.split(b"\n\n")[:-1]
        assert [json.loads(each[6:])["error"]["message"] for each in events] == ["Down"] * 2


def test_openais_own_client_builds_the_same_message() -> None:
    parts = [Text("Hi"), ToolCall("c", "f", '{"a":1}'), ToolCall("d", "g", '{"b":2}')]
    state = ChatCompletionStreamState()
    for chunk in chunks([*play(Answer([Choice(parts, TOOL_CALLS)], usage=USAGE))], ask(include_usage=True))[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    built = state.get_final_completion()
    assert built.choices[0].message.content == "Hi"
    assert [call.function.arguments for call in built.choices[0].message.tool_calls or []] == ['{"a":1}', '{"b":2}']
    assert built.usage is not None
    assert built.usage.total_tokens == 10


def test_what_is_written_is_read_again_alike() -> None:
    parts = [Thinking("hm"), Text("Hi", [Citation("https://x", "X", start=0, end=2)]), ToolCall("c", "f", '{"a":1}')]
    whole = Answer([Choice(parts, TOOL_CALLS, "tool_calls")], usage=USAGE)
    back = read_answer(write_answer(whole, ask()), "s")
    assert (back.choices[0].parts[0], back.choices[0].parts[2], back.usage) == (parts[0], parts[2], USAGE)
    out = writer(ask(include_usage=True))
    found = reader("s")
    events = found.feed(b"".join(out.send(event) for event in play(whole)))
    assert found.complete
    assert UsageSeen(USAGE) in events
