"""Tools, and which of them the model may or must call, as Anthropic has them.

Called by `anthropic_messages.request_writer`. Fields: https://platform.claude.com/docs/en/api/messages/create
"""

import hashlib
import re
from typing import Any

from proxy.formats.anthropic_messages.byte_relay import NAME
from proxy.formats.anthropic_messages.models import Rules, bound, object_schema, recursive
from proxy.formats.anthropic_messages.request_reader import (
    DEFAULT_LIFETIME,
)
from proxy.formats.base import Losses
from proxy.formats.canonical import (
    Request,
    Tool,
)

Block = dict[str, Any]


def cached(lifetime: str) -> dict[str, str]:
    return {"type": "ephemeral"} if lifetime == DEFAULT_LIFETIME else {"type": "ephemeral", "ttl": lifetime}


def write_tools(request: Request, known: Rules, losses: Losses) -> tuple[list[Block], Block | None]:
    choice = request.tool_choice
    allowed = frozenset(choice.allowed) if choice is not None else frozenset()
    tools: list[Block] = []
    names: set[str] = set()
    for tool in request.tools:
        if allowed and tool.kind != "server" and tool.name not in allowed:
            losses.at(tool.at, harmless=True)  # it may not be chosen: not offering it says the same
            continue
        written = _tool(tool, known, losses)
        if written is None:
            continue
        if written.get("name") in names:  # refused
            losses.at(tool.at)
            continue
        if "strict" in written and tool.origin != NAME and sum("strict" in each for each in tools) == _MOST_STRICT:
            del written["strict"]
            losses.at(f"{tool.at}.strict")
        names.add(written.get("name", ""))
        tools.append(written)
    return tools, _tool_choice(request, names, known, losses)


_MOST_STRICT = 20  # https://platform.claude.com/docs/en/build-with-claude/structured-outputs#schema-complexity-limits


def _tool(tool: Tool, known: Rules, losses: Losses) -> Block | None:
    if tool.kind == "server":
        if tool.origin != NAME:
            losses.at(tool.at)
        return dict(tool.raw) if tool.origin == NAME else None
    written: Block = {"name": tool_name(tool.name)}
    if written["name"] != tool.name:
        losses.at(f"{tool.at}.name", harmless=True)  # answers have the client's name again
    if tool.description:
        written["description"] = tool.description
    if tool.kind == "custom":
        written["input_schema"] = _CUSTOM
        if tool.grammar:
            losses.at(f"{tool.at}.format")
    else:
        written["input_schema"], whole = object_schema(tool.schema)
        if not whole:
            losses.at(f"{tool.at}.schema")
        _write_strict(written, tool, known, losses)
    if tool.cache:
        written["cache_control"] = cached(tool.cache)
    return written | _own_members(tool, losses)


def _own_members(tool: Tool, losses: Losses) -> Block:
    if tool.raw and tool.origin != NAME:
        losses.at(tool.at)
    return tool.raw if tool.origin == NAME else {}


_CUSTOM = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ODD_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def tool_name(name: str) -> str:
    """As Anthropic takes it; always the same for the same, and never the same for two."""
    if _NAME.fullmatch(name):
        return name
    mark = hashlib.blake2s(name.encode(errors="replace"), digest_size=4).hexdigest()
    return f"{_ODD_IN_NAME.sub('_', name)[:119]}_{mark}"


def _write_strict(written: Block, tool: Tool, known: Rules, losses: Losses) -> None:
    """Only a schema that can bind the model as it stands: a tool that is refused helps nobody."""
    if tool.strict is None:
        return
    schema = written["input_schema"]
    if tool.origin == NAME or not tool.strict:
        if tool.origin == NAME:
            written["strict"] = tool.strict
    elif known.structured and not recursive(schema) and bound(schema) == (schema, True):
        written["strict"] = True
    else:
        losses.at(f"{tool.at}.strict")


def _tool_choice(request: Request, names: set[str], known: Rules, losses: Losses) -> Block | None:
    choice, parallel = request.tool_choice, request.parallel_tool_calls
    if choice is None and parallel is None:
        return None
    mode = choice.mode if choice is not None else "auto"
    name = tool_name(choice.name) if choice is not None and mode == "tool" else ""
    if choice is not None and choice.allowed:
        losses.at("tool_choice.allowed", harmless=True)
    lost = not names or not known.forced or (name and name not in names)
    if mode in ("required", "tool") and lost:
        losses.field("tool_choice")
        mode = "auto"
    if not names and "mcp_servers" not in request.extra:  # refused without tools
        return None
    if mode == "none":
        return {"type": "none"}
    written: Block = {"type": _MODES.get(mode, "auto")}
    if mode == "tool":
        written["name"] = name
    if parallel is not None:
        written["disable_parallel_tool_use"] = not parallel
    return written


_MODES = {"auto": "auto", "required": "any", "tool": "tool"}
