"""The scripted provider's Gemini: https://ai.google.dev/api/generate-content."""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.genai import types

from tests.providers import scenario, valid
from tests.providers.scenario import Asked, Refused, Said, Tool

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
FINISH = {"stop": "STOP", "calls": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY"}
_FIELDS = {
    "contents": None,
    "tools": types.Tool,
    "toolConfig": types.ToolConfig,
    "safetySettings": types.SafetySetting,
    "systemInstruction": types.Content,
    "generationConfig": types.GenerationConfig,
    "cachedContent": None,
    "labels": None,
    "serviceTier": None,
}
# What takes the place of a signature that another model's turn does not have:
# https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_UNSIGNED = {"context_engineering_is_the_way_to_go", "skip_thought_signature_validator"}
_SIGNATURE = base64.b64decode(scenario.SIGNATURE)

Parts = list[dict[str, Any]]


# --- reading ---------------------------------------------------------------------------------------------------------


def read(body: Mapping[str, Any], *, model: str, stream: bool) -> Asked:
    body = {_camel(name): value for name, value in body.items() if value is not None}
    _check_types(body)
    turns = [(turn.get("role", "user"), _camel_parts(turn)) for turn in body.get("contents") or ()]
    _turns(turns)
    config = {_camel(name): value for name, value in (body.get("generationConfig") or {}).items() if value is not None}
    _check_config(config)
    last = [part for role, parts in turns[-1:] for part in parts]
    tools, choice = _tools(body)
    return Asked(
        dialect="gemini",
        model=model,
        stream=stream,
        user=([""] + [text for role, parts in turns if role == "user" and (text := _text(parts))])[-1],
        system=_text(_camel_parts(body.get("systemInstruction") or {})),
        tools=tools,
        choice=choice,
        results=[_result(part["functionResponse"]) for part in last if "functionResponse" in part],
        schema=config.get("responseJsonSchema") or config.get("responseSchema"),
        images=[image for part in last for image in _images(part)],
        thinks=bool(_camel_keys(config.get("thinkingConfig") or {}).get("includeThoughts")),
        signed=_signed(model, turns),
    )


def _camel(name: str) -> str:
    """Protocol buffers take both spellings in JSON: https://protobuf.dev/programming-guides/json/"""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _camel_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    return {_camel(name): part for name, part in value.items() if part is not None}


def _camel_parts(content: Mapping[str, Any]) -> Parts:
    return [_camel_keys(part) for part in content.get("parts") or ()]


def _check_types(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name not in _FIELDS:
            raise Refused.request(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
        model = _FIELDS[name]
        for place, part in enumerate(value if isinstance(value, list) else [value]):
            if model:
                valid.check_model(model, part, f"{name}[{place}]" if isinstance(value, list) else name)
    for place, turn in enumerate(body.get("contents") or ()):
        valid.check_model(types.Content, turn, f"contents[{place}]")


def _check_config(config: Mapping[str, Any]) -> None:
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if name in config]
    valid.unless(len(schemas) < 2, "Only one of response_schema and response_json_schema may be set.")
    valid.unless(
        not schemas or config.get("responseMimeType") == "application/json",
        "Function calling config or response schema: response_mime_type must be application/json.",
    )
    valid.unless(0 <= config.get("temperature", 1) <= 2, "temperature must be in the range [0.0, 2.0].")
    valid.unless(config.get("maxOutputTokens", 1) >= 1, "max_output_tokens must be positive.")
    valid.unless(1 <= config.get("candidateCount", 1) <= 8, "candidate_count must be in the range [1, 8].")
    valid.unless(len(config.get("stopSequences", ())) <= 5, "The maximum number of stop sequences is 5.")
    thinking = _camel_keys(config.get("thinkingConfig") or {})
    both = {"thinkingBudget", "thinkingLevel"} <= set(thinking)
    valid.unless(not both, "You can only set only one of thinking budget and thinking level.")


def _turns(turns: Sequence[tuple[str, Parts]]) -> None:
    """https://ai.google.dev/gemini-api/docs/function-calling#multi-turn-example-1"""
    valid.unless(turns, "* GenerateContentRequest.contents: contents is not specified")
    open_calls: list[str] = []
    before = ""
    for role, parts in turns:
        valid.unless(role in ("user", "model"), f"Please use a valid role: user, model. Not: {role}")
        valid.unless(parts, "* GenerateContentRequest.contents: contents.parts must not be empty.")
        for part in parts:
            said = set(part) - {"thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"}
            valid.unless(len(said) == 1, f"A part holds one of text, inlineData, …: {sorted(said)}")
        answers = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
        valid.unless(
            len(answers) == len(open_calls),
            "Please ensure that the number of function response parts is equal to the number of function call parts "
            "of the function call turn.",
        )
        valid.unless(sorted(answers) == sorted(open_calls), f"Function responses {answers} do not fit {open_calls}")
        open_calls = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
        valid.unless(
            not open_calls or (role == "model" and before == "user"),
            "Please ensure that function call turn comes immediately after a user turn or after a function response "
            "turn.",
        )
        before = role
    valid.unless(not open_calls, "The last function call has no function response.")


def _signed(model: str, turns: Sequence[tuple[str, Parts]]) -> int:
    """https://ai.google.dev/gemini-api/docs/thought-signatures"""
    if model != "thinking":
        return 0
    signed = 0
    for _, parts in turns:
        calls = [part for part in parts if "functionCall" in part]
        valid.unless(
            not calls or calls[0].get("thoughtSignature"),
            "Function call is missing a thought_signature in functionCall parts.",
        )
        for part in parts:
            signature = part.get("thoughtSignature")
            if signature is not None and signature not in _UNSIGNED:
                valid.unless(_decoded(signature) == _SIGNATURE, "Thought signature is not valid.")
                signed += 1
    return signed


def _decoded(text: str) -> bytes:
    """JSON of protocol buffers takes both alphabets of base64, with and without its end."""
    return base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4))


def _text(parts: Parts) -> str:
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


def _result(response: Mapping[str, Any]) -> str:
    """A response is an object; where it holds one text alone, that is what the tool said."""
    said = list(response["response"].values())
    return (
        said[0] if len(said) == 1 and isinstance(said[0], str) else json.dumps(response["response"], ensure_ascii=False)
    )


def _images(part: Mapping[str, Any]) -> Iterator[str]:
    if "inlineData" in part:
        blob = _camel_keys(part["inlineData"])
        yield scenario.picture(blob["mimeType"], blob["data"].replace("-", "+").replace("_", "/"))
    if "fileData" in part:
        yield f"at {_camel_keys(part['fileData'])['fileUri']}"


def _tools(body: Mapping[str, Any]) -> tuple[list[Tool], str]:
    given = [_camel_keys(tool) for tool in body.get("tools") or ()]
    tools = []
    for declared in (_camel_keys(one) for tool in given for one in tool.get("functionDeclarations") or ()):
        valid.unless(NAME.fullmatch(declared["name"]), f"Invalid function name: {declared['name']}")
        both = "parameters" in declared and "parametersJsonSchema" in declared
        valid.unless(not both, "Only one of parameters and parameters_json_schema may be set.")
        tools.append(Tool(declared["name"], declared.get("parametersJsonSchema") or declared.get("parameters") or {}))
    config = _camel_keys(_camel_keys(body.get("toolConfig") or {}).get("functionCallingConfig") or {})
    mode, allowed = config.get("mode", "AUTO"), config.get("allowedFunctionNames") or []
    valid.unless(not allowed or mode in ("ANY", "VALIDATED"), "allowed_function_names needs the mode ANY.")
    valid.unless(mode != "ANY" or tools, "Function calling config is set without function_declarations.")
    valid.unless(set(allowed) <= {tool.name for tool in tools}, "allowed_function_names holds an unknown function.")
    return tools, allowed[0] if len(allowed) == 1 else str(mode).lower()


# --- writing ---------------------------------------------------------------------------------------------------------


def counted(_: Asked) -> dict[str, Any]:
    details = [{"modality": "TEXT", "tokenCount": scenario.PROMPT_TOKENS}]
    return {"totalTokens": scenario.PROMPT_TOKENS, "promptTokensDetails": details}


def _usage(said: Said) -> dict[str, Any]:
    """The tokens of the candidates do not hold those of the thoughts."""
    thoughts = {"thoughtsTokenCount": said.reasoning_tokens} if said.thought else {}
    return {
        "promptTokenCount": scenario.PROMPT_TOKENS,
        "candidatesTokenCount": scenario.COMPLETION_TOKENS - said.reasoning_tokens,
        "totalTokenCount": scenario.PROMPT_TOKENS + scenario.COMPLETION_TOKENS,
        "cachedContentTokenCount": scenario.CACHED_TOKENS,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": scenario.PROMPT_TOKENS}],
        **thoughts,
    }


def _parts(asked: Asked, said: Said, *, streamed: bool) -> list[Parts]:
    """In the groups in which a stream sends them: texts in pieces, calls whole."""
    groups: list[Parts] = []
    for text, more in ((said.thought, {"thought": True}), (said.text, {})):
        pieces = scenario.split_text(text) if streamed else [text]
        groups += [[{"text": piece, **more}] for piece in pieces if text]
    signature = {"thoughtSignature": scenario.SIGNATURE}
    signs = asked.model == "thinking"
    calls: Parts = [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in said.calls]
    if calls and signs:
        calls[0] |= signature
    elif signs and said.end == "whole":
        groups.append([{"text": "", **signature}])
    return groups + [[call] for call in calls]


def _chunk(asked: Asked, parts: Parts, said: Said, *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if last:
        candidate["finishReason"] = FINISH[said.finish]
    if last and said.calls:
        candidate["finishMessage"] = "Model generated function call(s)."
    named = {"modelVersion": asked.model, "responseId": "scripted-response"}
    return {"candidates": [candidate], "usageMetadata": _usage(said), **named}


def plain(asked: Asked, said: Said) -> dict[str, Any]:
    parts = [part for group in _parts(asked, said, streamed=False) for part in group]
    return _chunk(asked, parts, said, last=True)


def stream(asked: Asked, said: Said) -> list[dict[str, Any]]:
    groups = _parts(asked, said, streamed=True)
    whole = said.end == "whole"
    chunks = [_chunk(asked, group, said, last=whole and group is groups[-1]) for group in groups]
    if said.end == "error":
        chunks.append(error(Refused(503, scenario.ERRORS[503])))
    return chunks


def sse(chunks: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n" for chunk in chunks]


def array(chunks: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """What `streamGenerateContent` sends without `alt=sse`."""
    texts = [json.dumps(chunk, ensure_ascii=False, indent=2) for chunk in chunks]
    return [f"{',' if place else '['}{text}\r\n".encode() for place, text in enumerate(texts)] + [b"]"]


# https://ai.google.dev/gemini-api/docs/troubleshooting#error-codes
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def error(refused: Refused) -> dict[str, Any]:
    status = _STATUSES.get(refused.status, "INVALID_ARGUMENT" if refused.status < 500 else "UNAVAILABLE")
    said: dict[str, Any] = {"code": refused.status, "message": refused.message, "status": status}
    if refused.status == 429:
        info = "type.googleapis.com/google.rpc.RetryInfo"
        said["details"] = [{"@type": info, "retryDelay": f"{scenario.RETRY_AFTER}s"}]
    return {"error": said}
