"""Parts of a message as Anthropic's content blocks. Called by `anthropic_messages.request_writer`.

Blocks: https://platform.claude.com/docs/en/api/messages/create
"""

import base64
import binascii
from collections.abc import Iterable

from proxy.formats.anthropic_messages.byte_relay import NAME
from proxy.formats.anthropic_messages.models import Rules
from proxy.formats.anthropic_messages.request_reader import (
    OwnCall,
    OwnMedia,
    arguments_object,
    tool_id,
)
from proxy.formats.anthropic_messages.tool_writer import Block, cached, tool_name
from proxy.formats.base import Losses
from proxy.formats.canonical import (
    Media,
    Opaque,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

Item = tuple[Part, Block]  # a block beside the part that it says


class Parts:
    """Parts of a message as blocks. `role`: whose message it is."""

    __slots__ = ("_known", "_losses", "_role")

    def __init__(self, role: str, known: Rules, losses: Losses) -> None:
        self._role = role
        self._known = known
        self._losses = losses

    def items(self, parts: Iterable[Part]) -> list[Item]:
        items: list[Item] = []
        for part in parts:
            block = self._block(part)
            if block is None:
                continue
            if part.cache and "cache_control" not in block and block["type"] not in _UNCACHED:
                block["cache_control"] = cached(part.cache)
            if part.signature and not isinstance(part, Thinking):
                self._losses.at(f"{part.at}.signature", harmless=True)
            items.append((part, block))
        return items

    def _block(self, part: Part) -> Block | None:
        match part:
            case Text() | Refusal():
                return self._text(part)
            case Opaque() if part.origin == NAME:
                return dict(part.value)
            case Thinking() if self._role == "assistant":
                return self._thinking(part)
            case ToolCall() if self._role == "assistant":
                return self._call(part)
            case ToolResult() if self._role == "user":
                return self._result(part)
            case Media() if self._role == "user":
                return self._media(part)
        self._losses.at(part.at)
        return None

    def _text(self, part: Text | Refusal) -> Block | None:
        if not part.text.strip():  # refused
            if part.text or part.cache:
                self._losses.at(part.at, harmless=True)
            return None
        block: Block = {"type": "text", "text": part.text}
        cited = part.citations if isinstance(part, Text) else []
        own = [each.raw for each in cited if each.origin == NAME and each.raw.get("encrypted_index") != ""]
        if own:
            block["citations"] = own
        if len(own) < len(cited):
            self._losses.at(f"{part.at}.citations", harmless=True)
        return block

    def _thinking(self, part: Thinking) -> Block | None:
        """Only what Claude has signed comes back to it; other models of this API take thoughts as they are."""
        if part.signature and part.origin == NAME:
            if part.redacted:
                return {"type": "redacted_thinking", "data": part.signature}
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        if self._known.unsigned and part.text:
            return {"type": "thinking", "thinking": part.text, "signature": ""}
        self._losses.at(part.at, harmless=True)  # the model thinks anew
        return None

    def _call(self, part: ToolCall) -> Block:
        given, whole = ({"input": part.arguments}, True) if part.custom else arguments_object(part.arguments)
        if not whole:
            self._losses.at(f"{part.at}.arguments", harmless=True)
        block: Block = {"type": "tool_use", "id": tool_id(part.id), "name": tool_name(part.name), "input": given}
        return block | part.raw if isinstance(part, OwnCall) else block

    def _result(self, part: ToolResult) -> Block:
        block: Block = {"type": "tool_result", "tool_use_id": tool_id(part.call_id)}
        content = [each for _, each in self.items(part.parts)]
        if content:
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return block

    def _media(self, part: Media) -> Block | None:
        if isinstance(part, OwnMedia):
            return dict(part.raw)
        media_type = _media_type(part)
        if part.kind == "image" or (part.kind == "file" and media_type.startswith("image/")):
            source = _image_source(part, media_type)
            kind = "image"
            if part.detail not in ("", "auto"):
                self._losses.at(f"{part.at}.detail", harmless=True)
        else:
            source = _document_source(part, media_type) if part.kind == "file" else None
            kind = "document"
            if source is not None and source["type"] == "text" and media_type not in ("", "text/plain"):
                self._losses.at(f"{part.at}.media_type", harmless=True)
        if source is None:
            self._losses.at(part.at)
            return None
        block: Block = {"type": kind, "source": source}
        return block | _about(part) if kind == "document" else block


_UNCACHED = frozenset({"thinking", "redacted_thinking"})
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_BEGINNINGS = {
    "/9j/": "image/jpeg",
    "iVBOR": "image/png",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "JVBERi": "application/pdf",
}
_ENDINGS = {".pdf": "application/pdf", ".txt": "text/plain", ".md": "text/markdown", ".csv": "text/csv"}
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


def _media_type(part: Media) -> str:
    """As it is said, else as its name or its first bytes tell."""
    said = part.media_type.partition(";")[0].strip().lower()
    if said and said != "application/octet-stream":
        return "image/jpeg" if said == "image/jpg" else said
    found = next((kind for start, kind in _BEGINNINGS.items() if part.data.startswith(start)), "")
    return found or next((kind for end, kind in _ENDINGS.items() if part.name.lower().endswith(end)), "")


def _image_source(part: Media, media_type: str) -> Block | None:
    if part.data:
        return {"type": "base64", "media_type": media_type, "data": part.data} if media_type in _IMAGES else None
    return _reference(part)


def _reference(part: Media) -> Block | None:
    if part.url:
        return {"type": "url", "url": part.url}
    if part.file_id and part.origin == NAME:
        return {"type": "file", "file_id": part.file_id}
    return None


def _document_source(part: Media, media_type: str) -> Block | None:
    """PDF and text are all there is."""
    if part.text:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    if not part.data:
        return _reference(part) if media_type in ("", "application/pdf") or part.file_id else None
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": part.data}
    if not media_type.startswith("text/") and media_type not in _TEXTS:
        return None
    try:
        text = base64.b64decode(part.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return {"type": "text", "media_type": "text/plain", "data": text} if text.strip() else None


def _about(part: Media) -> Block:
    about: Block = {name: said for name, said in (("title", part.name), ("context", part.context)) if said}
    if part.cite is not None:
        about["citations"] = {"enabled": part.cite}
    return about
