from collections.abc import Iterable

import pytest

from proxy.formats.canonical import (
    TOOL_CALLS,
    Answer,
    Choice,
    Citation,
    Collector,
    End,
    Event,
    Finish,
    Media,
    PartDelta,
    PartEnd,
    PartStart,
    Sequencer,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
    play,
    seal,
    unseal,
)


def sequenced(*events: Event) -> list[Event]:
    sequencer = Sequencer()
    return [out for event in events for out in sequencer.put(event)]


def collected(events: Iterable[Event]) -> Answer:
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.answer


def told(events: list[Event]) -> list[str]:
    """One word per event: `0+Text`, `0:words`, `0-`."""
    words = []
    for event in events:
        match event:
            case PartStart():
                words.append(f"{event.index}+{type(event.part).__name__}")
            case PartDelta():
                words.append(f"{event.index}:{event.text}")
            case PartEnd():
                words.append(f"{event.index}-{event.signature}")
            case _:
                words.append(type(event).__name__)
    return words


WHOLE = Answer(
    [
        Choice(
            [Thinking("hm", signature="s", origin="x"), Text("hello"), ToolCall("c1", "f", '{"a":1}')],
            TOOL_CALLS,
            "tool_use",
        ),
        Choice([Media("audio", data="AAAA", transcript="la")], logprobs=None),
    ],
    "id",
    "model",
    Usage(3, 4),
)


def test_an_answer_played_and_collected_is_the_same() -> None:
    assert collected(play(WHOLE)) == WHOLE


def test_logprobs_are_played() -> None:
    answer = Answer([Choice([Text("a")], logprobs=[{"token": "a", "logprob": -0.5}])])
    assert collected(play(answer)) == answer


def test_a_stream_is_collected() -> None:
    events: list[Event] = [
        Start("id", "model"),
        PartStart(0, Thinking()),
        PartDelta(0, "hm"),
        PartEnd(0, signature="s", origin="x"),
        PartStart(1, Text("")),
        PartDelta(1, "hel"),
        PartDelta(1, "lo", citation=Citation("https://a.example")),
        PartEnd(1),
        PartStart(2, Media("audio")),
        PartDelta(2, "AAAA", transcript="la"),
        PartEnd(2),
        Finish(TOOL_CALLS, "tool_use"),
        UsageSeen(Usage(1, 1)),
        UsageSeen(Usage(3, 4)),
        End(),
    ]
    answer = collected(events)
    thinking, text, audio = answer.choices[0].parts
    assert thinking == Thinking("hm", signature="s", origin="x")
    assert text == Text("hello", [Citation("https://a.example")])
    assert audio == Media("audio", data="AAAA", transcript="la")
    assert (answer.choices[0].reason, answer.choices[0].raw_reason, answer.usage) == (
        TOOL_CALLS,
        "tool_use",
        Usage(3, 4),
    )


def test_parts_in_a_row_stay_as_they_are() -> None:
    events: list[Event] = [PartStart(0, Text("")), PartDelta(0, "a"), PartEnd(0), PartStart(1, Text("")), PartEnd(1)]
    assert told(sequenced(*events, Finish("stop"))) == ["0+Text", "0:a", "0-", "1+Text", "1-", "Finish"]


def test_tool_calls_that_overlap_come_one_after_another() -> None:
    events = sequenced(
        PartStart(0, ToolCall("a", "f")),
        PartStart(1, ToolCall("b", "g")),
        PartDelta(0, '{"x":'),
        PartDelta(1, '{"y":'),
        PartDelta(0, "1}"),
        PartDelta(1, "2}"),
        PartEnd(0),
        PartEnd(1),
        Finish("tool_calls"),
    )
    assert told(events) == [
        "0+ToolCall", '0:{"x":', "0:1}", "0-", "1+ToolCall", '1:{"y":', "1:2}", "1-", "Finish",
    ]  # fmt: skip
    first, second = collected(events).choices[0].parts
    assert (first, second) == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"y":2}'))


def test_arguments_that_are_whole_let_the_next_call_begin_at_once() -> None:
    events = sequenced(PartStart(0, ToolCall("a", "f")), PartDelta(0, '{"x":1}'), PartStart(1, ToolCall("b", "g")))
    assert told(events) == ["0+ToolCall", '0:{"x":1}', "0-", "1+ToolCall"]


def test_white_space_after_whole_arguments_is_nothing() -> None:
    events = sequenced(PartStart(0, ToolCall("a", "f", "{}")), PartStart(1, Text("")), PartDelta(0, " \n"), PartEnd(0))
    assert told(events) == ["0+ToolCall", "0-", "1+Text"]


def test_more_arguments_after_whole_ones_is_refused() -> None:
    with pytest.raises(ValueError, match="has ended"):
        sequenced(PartStart(0, ToolCall("a", "f", "{}")), PartStart(1, Text("")), PartDelta(0, "}"))


def test_more_of_a_part_that_ended_of_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="has ended"):
        sequenced(PartStart(0, Text("")), PartEnd(0), PartDelta(0, "more"))


def test_free_text_of_a_custom_tool_is_never_taken_to_be_whole() -> None:
    events = sequenced(PartStart(0, ToolCall("a", "f", "1", custom=True)), PartStart(1, Text("")), PartDelta(0, "2"))
    assert told(events) == ["0+ToolCall", "0:2"]


def test_text_that_another_part_interrupts_goes_on_as_a_new_part() -> None:
    events = sequenced(
        PartStart(0, Text("")),
        PartDelta(0, "a"),
        PartStart(1, Thinking(summary=True)),
        PartDelta(1, "hm"),
        PartDelta(0, "b"),
        PartEnd(0),
        PartEnd(1),
        Finish("stop"),
    )
    assert told(events) == ["0+Text", "0:a", "0-", "1+Thinking", "1:hm", "1-", "2+Text", "2:b", "2-", "Finish"]


def test_a_signature_that_comes_after_its_part_was_cut_off_is_kept() -> None:
    events = sequenced(
        PartStart(0, Thinking()), PartStart(1, Text("")), PartEnd(0, signature="s", origin="x"), PartEnd(1)
    )
    assert told(events) == ["0+Thinking", "0-", "1+Text", "1-", "2+Thinking", "2-"]
    bearer = collected(events).choices[0].parts[2]
    assert bearer == Thinking(redacted=True, signature="s", origin="x")


def test_what_never_ends_ends_with_its_choice() -> None:
    events = sequenced(
        PartStart(0, ToolCall("a", "f", "{")), PartStart(1, ToolCall("b", "g")), PartDelta(1, "{}"), Finish("length")
    )
    assert told(events) == ["0+ToolCall", "0-", "1+ToolCall", "1:{}", "1-", "Finish"]


def test_choices_do_not_wait_for_each_other() -> None:
    events = sequenced(PartStart(0, Text("")), PartStart(0, Text(""), 1), PartDelta(0, "a"), PartDelta(0, "b", 1))
    assert told(events) == ["0+Text", "0+Text", "0:a", "0:b"]


@pytest.mark.parametrize("value", ["", "signature==", "é…\n", '{"json": "x"}'])
def test_what_is_sealed_comes_back(value: str) -> None:
    sealed = seal("gemini", value)
    assert sealed.isascii()
    assert " " not in sealed
    assert unseal(sealed) == ("gemini", value)


@pytest.mark.parametrize("text", ["", "ErUBCkYI", "kodna1.", "kodna1.!!", "kodna1.e30", "kodna1.WzFd"])
def test_what_is_not_sealed_is_told(text: str) -> None:
    assert unseal(text) is None
