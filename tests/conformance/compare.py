"""Where two readings of one answer differ, and which of it a named loss explains. What counts as equal stands here."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.conformance.google_sdk import OTHER
from tests.conformance.reading import FILTERED, PAUSE, STOP, TOOL_CALLS, Call, Counted, Reading, Said

# The losses (`answer.…`) that explain a difference of each kind, where they have another name; nothing else does.
EXPLAINED_BY: dict[str, frozenset[str]] = {
    "choices": frozenset({"choices", "n"}),
    "citations": frozenset({"citations", "annotations"}),
    "logprobs": frozenset({"logprobs"}),
    "arguments": frozenset({"tool_calls.arguments"}),
    "media": frozenset({"image", "audio"}),
}


@dataclass(frozen=True)
class Difference:
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def differences(truth: Reading, found: Reading, target: str) -> list[Difference]:
    """`target`: the name of the format that `found` was read from."""
    out = []
    if len(truth.choices) != len(found.choices):
        out.append(Difference("choices", f"{len(truth.choices)} → {len(found.choices)}"))
    for one, other in zip(truth.choices, found.choices, strict=False):
        out += _of_choice(one, other, target)
    if truth.usage is not None:
        out += _of_usage(truth.usage, found.usage, target)
    return out


def unexplained(found: Iterable[Difference], losses: Iterable[str]) -> list[Difference]:
    names = {name.removeprefix("answer.") for name in losses}
    return [one for one in found if names.isdisjoint(EXPLAINED_BY.get(one.kind, {one.kind}))]


def _of_choice(truth: Said, found: Said, target: str) -> list[Difference]:
    pairs: list[tuple[str, object, object]] = [
        ("calls", truth.calls, calls := _mended(truth, found)),
        ("arguments", calls, found.calls),
        ("media", truth.media, found.media),
        ("reasoning", _words(truth.reasoning), _words(found.reasoning)),
        ("citations", truth.citations, found.citations),
        ("logprobs", truth.logprobs, found.logprobs),
    ]
    if target in ("messages", "generateContent"):  # without a place of its own: a refusal's words are text there
        pairs.append(("text", truth.text + truth.refusal, found.text))
    else:
        pairs += [("text", truth.text, found.text), ("refusal", truth.refusal, found.refusal)]
    out = [Difference(kind, _shown(one, other)) for kind, one, other in pairs if one != other]
    out += [Difference(kind, "an item that only its own format knows") for kind in sorted(truth.others - found.others)]
    if found.reason not in _reasons(truth, target):
        out.append(Difference("reason", f"{truth.reason} ({truth.raw}) → {found.reason} ({found.raw})"))
    return out


def _reasons(truth: Said, target: str) -> set[str]:
    """The stop reasons that say the same."""
    if truth.refusal:
        return {truth.reason, FILTERED, STOP}  # Anthropic says `refusal`; with OpenAI the words say it, behind a `stop`
    if truth.reason == PAUSE and target != "messages":
        return {STOP}  # only Anthropic has a word for a turn that the client is to continue
    if truth.reason == OTHER:
        # Gemini's MALFORMED_FUNCTION_CALL and the like have no word elsewhere
        return {OTHER, TOOL_CALLS if truth.calls else STOP, FILTERED}
    if truth.reason == FILTERED and truth.calls:
        return {FILTERED, TOOL_CALLS}
    return {truth.reason}


def _mended(truth: Said, found: Said) -> list[Call]:
    """Arguments that are no JSON are one string within an object, where a format has objects only."""
    out = list(found.calls)
    for place, (call, other) in enumerate(zip(truth.calls, out, strict=False)):
        wrapped = other.arguments if isinstance(other.arguments, dict) else {}
        if isinstance(call.arguments, str) and list(wrapped.values()) == [call.arguments]:
            out[place] = Call(other.name, call.arguments)
    return out


def _words(text: str) -> str:
    """Thoughts that come in pieces are set apart by each format in its own way: by white space, or a new part."""
    return "".join(text.split())


def _of_usage(truth: Counted, found: Counted | None, target: str) -> list[Difference]:
    if found is None:
        return [Difference("usage", f"{truth} → none")]
    out = []
    for name in ("prompt", "completion", "cached", "written", "reasoning"):
        if name == "written" and target == "generateContent":
            continue  # it has no count of what was written to the cache
        one, other = getattr(truth, name), getattr(found, name)
        if name == "prompt" and target == "messages":  # where a provider contradicts itself: these formats count apart
            one = max(one, truth.cached + truth.written)
        if name == "completion" and target == "generateContent":
            one = max(one, truth.reasoning)
        if one != other:
            out.append(Difference(f"usage.{name}", f"{one} → {other}"))
    return out


def _shown(one: object, other: object) -> str:
    """Both, from where they begin to differ."""
    first, second = str(one), str(other)
    at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    start = max(0, at - 30)
    return f"{first[start : at + 60]!r} → {second[start : at + 60]!r}"
