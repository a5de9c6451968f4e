"""Valid requests with everything in them, in each client's format, and answers of each provider's: to be mutated."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from tests import recordings
from tests.proxy.formats import oracle
from tests.recordings import Exchange

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # a whole PNG
)
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}

CHAT: list[dict[str, Any]] = [
    {
        "model": "m",
        "max_completion_tokens": 50,
        "temperature": 0.5,
        "seed": 7,
        "stop": ["END"],
        "user": "u",
        "reasoning_effort": "low",
        "parallel_tool_calls": True,
        "metadata": {"a": "b"},
        "store": False,
        "stream_options": {"include_usage": True},
        "service_tier": "auto",
        "logit_bias": {"50256": -100},
        "n": 1,
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "d", "parameters": CITY, "strict": True},
            },
            {"type": "function", "function": {"name": "we.ather", "parameters": {"type": "object", "properties": {}}}},
            {"type": "custom", "custom": {"name": "run", "format": {"type": "text"}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "messages": [
            {"role": "system", "content": "Be kind."},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            },
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "text": "Hm",
                        "signature": "c2ln",
                        "format": "anthropic-claude-v1",
                        "index": 0,
                    },
                    {"type": "reasoning.encrypted", "data": "ZW5j", "id": "rs_1"},
                ],
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Köln"}'},
                        "extra_content": {"google": {"thought_signature": "c2ln"}},
                    },
                    {"id": "call_2", "type": "custom", "custom": {"name": "run", "input": "ls"}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "20 °C"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "a.txt"}]},
            {"role": "assistant", "content": "Sunny.", "refusal": None},
            {"role": "user", "content": "And tomorrow?"},
        ],
    },
    {
        "model": "m",
        "max_tokens": 20,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "mp3"},
        "verbosity": "low",
        "frequency_penalty": 0.1,
        "top_k": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}},
        "messages": [{"role": "user", "content": "A city, please"}],
        "prompt_cache_key": "k",
        "web_search_options": {},
    },
]

COMPLETIONS: list[dict[str, Any]] = [
    {
        "model": "m",
        "prompt": "Once upon",
        "max_tokens": 9,
        "echo": False,
        "suffix": None,
        "stop": ["a", "b"],
        "n": 1,
        "best_of": 1,
        "logprobs": 2,
        "temperature": 0,
        "top_p": 1,
        "stream_options": {"include_usage": True},
        "user": "u",
    },
    {"model": "m", "prompt": ["Once upon"], "seed": 3, "logit_bias": {"1": 1}, "presence_penalty": 1},
]

MESSAGES: list[dict[str, Any]] = [
    {
        "model": "m",
        "max_tokens": 5000,
        "temperature": 1,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "service_tier": "auto",
        "tools": [
            {"name": "weather", "description": "d", "input_schema": CITY, "cache_control": {"type": "ephemeral"}},
            {"name": "run", "input_schema": {"type": "object"}, "strict": True, "defer_loading": False},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
            {"type": "bash_20250124", "name": "bash"},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                        "title": "t",
                        "context": "c",
                        "citations": {"enabled": True},
                    },
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                    },
                    {
                        "type": "search_result",
                        "source": "https://e.com",
                        "title": "t",
                        "content": [{"type": "text", "text": "x"}],
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "kodna1.WyJnZW1pbmkiLCJhYmMiXQ"},
                    {
                        "type": "text",
                        "text": "Let me see",
                        "citations": [
                            {
                                "type": "char_location",
                                "cited_text": "w",
                                "document_index": 0,
                                "document_title": "t",
                                "start_char_index": 0,
                                "end_char_index": 1,
                            }
                        ],
                    },
                    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
                    {
                        "type": "web_search_tool_result",
                        "tool_use_id": "srvtoolu_1",
                        "content": [
                            {
                                "type": "web_search_result",
                                "url": "https://e.com",
                                "title": "t",
                                "encrypted_content": "e",
                            }
                        ],
                    },
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "run", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "20 °C"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "is_error": True,
                        "content": [
                            {"type": "text", "text": "no"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                        ],
                    },
                ],
            },
        ],
    },
    {
        "model": "m",
        "max_tokens": 50,
        "system": "Be brief.",
        "top_k": 5,
        "top_p": 0.9,
        "cache_control": {"type": "ephemeral"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": CITY}},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": []},
        "mcp_servers": [{"type": "url", "url": "https://e.com", "name": "x"}],
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is {"}],
    },
]

RESPONSES: list[dict[str, Any]] = [
    {
        "model": "m",
        "instructions": "Be kind.",
        "max_output_tokens": 50,
        "temperature": 0.5,
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}},
        "truncation": "auto",
        "prompt_cache_key": "k",
        "max_tool_calls": 3,
        "tools": [
            {"type": "function", "name": "weather", "description": "d", "parameters": CITY, "strict": True},
            {
                "type": "custom",
                "name": "apply",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"},
            },
            {
                "type": "namespace",
                "name": "fs",
                "description": "files",
                "tools": [{"type": "function", "name": "read", "parameters": {"type": "object", "properties": {}}}],
            },
            {"type": "web_search", "filters": {"allowed_domains": ["e.com"]}},
            {"type": "mcp", "server_label": "s", "server_url": "https://e.com", "require_approval": "never"},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
        "input": [
            {"role": "developer", "content": "Be brief."},
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "name": "exec"}]},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                ],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm"}],
                "encrypted_content": "ZW5j",
            },
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "kodna1.WyJnZW1pbmkiLCJhYmMiXQ"},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {
                        "type": "output_text",
                        "text": "Let me see",
                        "annotations": [
                            {
                                "type": "url_citation",
                                "url": "https://e.com",
                                "title": "t",
                                "start_index": 0,
                                "end_index": 3,
                            }
                        ],
                    },
                    {"type": "refusal", "refusal": "No."},
                ],
            },
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "call_1",
                "name": "weather",
                "arguments": '{"city":"Köln"}',
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "20 °C"},
            {"type": "custom_tool_call", "call_id": "call_2", "name": "apply", "input": "a"},
            {
                "type": "custom_tool_call_output",
                "call_id": "call_2",
                "output": [{"type": "input_text", "text": "done"}],
            },
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "x"},
            },
            {"role": "user", "content": "Go on"},
        ],
    },
    {"model": "m", "input": "Hello", "store": False, "service_tier": "auto", "user": "u", "top_p": 0.5},
    {
        "model": "m",
        "input": [{"role": "user", "content": "Hi"}, {"type": "item_reference", "id": "msg_1"}],
        "previous_response_id": "resp_1",
    },
]

GEMINI: list[dict[str, Any]] = [
    {
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 5,
            "maxOutputTokens": 50,
            "stopSequences": ["END"],
            "seed": 7,
            "candidateCount": 1,
            "responseMimeType": "application/json",
            "responseJsonSchema": CITY,
            "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True},
            "presencePenalty": 0.1,
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "weather",
                        "description": "d",
                        "parameters": {
                            "type": "OBJECT",
                            "properties": {"city": {"type": "STRING", "nullable": True}},
                            "required": ["city"],
                        },
                    },
                    {"name": "run", "parametersJsonSchema": CITY},
                ]
            },
            {"googleSearch": {}},
            {"codeExecution": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is this?"},
                    {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
                    {"fileData": {"fileUri": "https://e.com/a.pdf", "mimeType": "application/pdf"}},
                    {"inline_data": {"mime_type": "audio/wav", "data": "UklGRg=="}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Hm", "thought": True},
                    {"text": "Let me see", "thoughtSignature": "c2ln"},
                    {
                        "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Köln"}},
                        "thoughtSignature": "c2ln",
                    },
                    {"functionCall": {"name": "run", "args": {}}},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "20 °C"}}},
                    {
                        "functionResponse": {
                            "name": "run",
                            "response": {"error": "no"},
                            "parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}],
                        }
                    },
                ],
            },
        ],
    },
    {
        "contents": [{"parts": [{"text": "Hi"}]}],
        "system_instruction": "Be brief.",
        "cachedContent": "cachedContents/1",
        "generation_config": {
            "max_output_tokens": 9,
            "response_mime_type": "application/json",
            "response_schema": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["a"]}},
            "thinking_config": {"thinking_level": "LOW"},
            "response_modalities": ["TEXT", "IMAGE"],
        },
    },
]

_APIS = {"chat": "chat", "responses": "responses", "messages": "messages", "gemini": "generateContent"}
_FOLDERS = (recordings.OWN, recordings.OWN.parents[2] / "conformance" / "fixtures")


@cache
def exchanges(form: str) -> tuple[Exchange, ...]:
    files = [path for folder in _FOLDERS for path in sorted(folder.glob(f"*.{_APIS[form]}.jsonl"))]
    return tuple(exchange for path in files for exchange in recordings.read(path))


def requests(form: str) -> list[dict[str, Any]]:
    own = {"chat": CHAT, "completions": COMPLETIONS, "responses": RESPONSES, "messages": MESSAGES, "gemini": GEMINI}[
        form
    ]
    asked = [one.asked for one in exchanges(form) if one.asked] if form in _APIS else []
    return [*own, *(body for body in asked if any(body.get(name) for name in ("messages", "input", "contents")))]


def answers(form: str) -> list[bytes]:
    """Plain ones, as a provider writes them."""
    return [one.body for one in exchanges(form) if not one.stream and one.status == 200]


def fails(answer: bytes) -> bool:
    return any(mark in answer for mark in (b'"error":{', b'"error": {', b"event: error", b"response.failed"))


def streams(form: str) -> list[bytes]:
    return [one.body for one in exchanges(form) if one.stream and one.framing == "sse" and one.status == 200]


def refusals() -> list[tuple[int, bytes]]:
    every: Iterable[Exchange] = (one for form in _APIS for one in exchanges(form))
    return [(one.status, one.body) for one in every if one.status != 200]


def events(stream: bytes) -> list[tuple[str, str]]:
    """Each with its name and its data; without comments."""
    found = []
    for raw, data in oracle.events(stream):
        if data is not None:
            lines = [line for line in raw.splitlines() if line.startswith(b"event:")]
            found.append((lines[0][6:].strip().decode() if lines else "", data.strip()))
    return found
