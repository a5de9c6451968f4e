"""What the official google-genai SDK reads from Gemini's generateContent, without a network. See `openai_sdk.py`."""

import json
import re
import warnings
from collections.abc import Iterable
from typing import Any

import httpx
from google.genai import errors, models, types
from google.genai._api_client import HttpResponse

from tests.conformance.reading import FILTERED, LENGTH, STOP, Call, Counted, Reading, Said, Unread, settled

OTHER = "other"
_REASONS = {
    "STOP": STOP,
    "MAX_TOKENS": LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
        ),
        FILTERED,
    ),
}
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\['([^']*)'\]")  # of a JSON path
_FAULTS = (errors.APIError, AttributeError, KeyError, TypeError, ValueError, Warning)


def error(status: int, body: bytes) -> errors.APIError:
    """What the SDK raises for such an answer."""
    request = httpx.Request("POST", "http://127.0.0.1/v1beta/models/m:generateContent")
    response = httpx.Response(status, content=body, request=request, headers={"content-type": "application/json"})
    try:
        errors.APIError.raise_for_response(response)
    except errors.APIError as raised:
        return raised
    raise AssertionError(f"the SDK does not raise for {status}")


def generate(body: bytes, *, vertex: bool = False) -> Reading:
    try:
        return _sum([_made(json.loads(body), vertex=vertex)])
    except _FAULTS as fault:
        raise Unread(f"{type(fault).__name__}: {fault}") from fault


def generate_stream(body: bytes, *, vertex: bool = False) -> Reading:
    """Its chunks, one after another; the SDK has no helper that adds them up."""
    response = httpx.Response(200, content=body)
    chunks = []
    try:
        for found in _array(body) or HttpResponse({}, response_stream=response).segments():
            if json.dumps(found).startswith('{"error":'):  # as `request_streamed` does
                errors.APIError.raise_error(found["error"].get("code"), found, response)
            chunks.append(_made(found, vertex=vertex))
    except _FAULTS as fault:
        raise Unread(f"{type(fault).__name__}: {fault}") from fault
    return _sum(chunks)


def _array(body: bytes) -> list[dict[str, Any]]:
    """What comes without `alt=sse`; the SDK always asks for events."""
    return json.loads(body) if body.lstrip().startswith(b"[") else []


def _made(found: dict[str, Any], *, vertex: bool) -> types.GenerateContentResponse:
    convert = models._GenerateContentResponse_from_vertex if vertex else models._GenerateContentResponse_from_mldev
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # words that its enumerations do not know
        return types.GenerateContentResponse._from_response(response=convert(found, None, None), kwargs={})


def _sum(chunks: Iterable[types.GenerateContentResponse]) -> Reading:
    choices: dict[int, Said] = {}
    usage, blocked, words = None, "", ""
    open_calls: dict[int, _Partial] = {}
    for chunk in chunks:
        usage = _usage(chunk.usage_metadata) or usage
        if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
            blocked = str(chunk.prompt_feedback.block_reason.value)
            words = chunk.prompt_feedback.block_reason_message or ""
        for place, candidate in enumerate(chunk.candidates or ()):
            number = place if candidate.index is None else candidate.index
            said = choices.setdefault(number, Said())
            for part in (candidate.content and candidate.content.parts) or ():
                _add(said, part, open_calls, number)
            said.citations += _citations(candidate)
            if candidate.finish_reason:
                said.raw = str(candidate.finish_reason.value)
            said.logprobs = said.logprobs or bool(
                candidate.logprobs_result and candidate.logprobs_result.chosen_candidates
            )
    if not choices and blocked:
        return Reading([Said(refusal=words, reason=FILTERED, raw=blocked)], usage)
    if not choices:
        raise Unread("no candidates")
    for number, said in choices.items():
        if not said.raw:
            raise Unread(f"candidate {number} has no finishReason")
        said.reason = _REASONS.get(said.raw, OTHER)
    return Reading([settled(choices[number]) for number in sorted(choices)], usage)


def _add(said: Said, part: types.Part, open_calls: dict[int, "_Partial"], number: int) -> None:
    if part.function_call is not None:
        call = part.function_call
        partial = open_calls.get(number)
        if partial is not None and not call.name:
            partial.add(call.partial_args or ())
            said.calls[-1].arguments = partial.value
        else:
            said.calls.append(Call(call.name or "", call.args or {}))
            open_calls[number] = _Partial()
            open_calls[number].add(call.partial_args or ())
            said.calls[-1].arguments = call.args or open_calls[number].value
    elif part.text and part.thought:
        said.reasoning += part.text
    elif part.text:
        said.text += part.text
    said.media += bool(part.inline_data)
    said.others |= {name for name, value in _only_here(part).items() if value}


def _only_here(part: types.Part) -> dict[str, Any]:
    return {
        "executableCode": part.executable_code,
        "codeExecutionResult": part.code_execution_result,
        "toolCall": part.tool_call,
        "toolResponse": part.tool_response,
    }


class _Partial:
    """Arguments that come in pieces, each with its JSON path (`$.a.b[0]`): Vertex's `streamFunctionCallArguments`."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def add(self, pieces: Iterable[types.PartialArg]) -> None:
        for piece in pieces:
            found = _STEP.findall(piece.json_path or "")
            steps = [int(index) if index else name or quoted for name, index, quoted in found]
            at: Any = self.value
            for step, after in zip(steps, [*steps[1:], None], strict=True):
                empty: Any = [] if isinstance(after, int) else {}
                if after is None:
                    _put(at, step, _piece(piece))
                else:
                    at = _put(at, step, empty)


def _piece(piece: types.PartialArg) -> Any:
    for value in (piece.string_value, piece.number_value, piece.bool_value):
        if value is not None:
            return value
    return None if piece.null_value else ""


def _put(at: Any, step: Any, value: Any) -> Any:
    """The value at that place of a list or an object; text goes on."""
    if isinstance(at, list):
        at.extend([None] * (step + 1 - len(at)))
        there = at[step]
    else:
        there = at.get(step)
    if isinstance(there, str) and isinstance(value, str):
        value = there + value
    elif isinstance(there, list | dict) and isinstance(value, list | dict):
        value = there
    at[step] = value
    return value


def _citations(candidate: types.Candidate) -> int:
    """A place in the text with its source: grounding's supports, each of its chunks for itself; and quotations."""
    grounding, quoted = candidate.grounding_metadata, candidate.citation_metadata
    supports = (grounding.grounding_supports or ()) if grounding else ()
    count = sum(len(support.grounding_chunk_indices or ()) for support in supports)
    sources = [one for one in (quoted.citations or ()) if one.uri or one.title] if quoted else []
    return count + len(sources)


def _usage(usage: types.GenerateContentResponseUsageMetadata | None) -> Counted | None:
    """Thoughts stand beside the candidates; a tool's prompt beside the prompt."""
    if usage is None:
        return None
    prompt = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
    completion = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    if not prompt and not completion:
        return None
    return Counted(prompt, completion, usage.cached_content_token_count or 0, 0, usage.thoughts_token_count or 0)
