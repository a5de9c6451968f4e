"""A request of any format written as Anthropic's Messages, such that the API does not refuse it.

What it cannot say, or only says in part, is named in the target's losses. Called by `anthropic_messages`.
Fields: https://platform.claude.com/docs/en/api/messages/create
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.formats import reasoning as thoughts
from proxy.formats.anthropic_messages.block_writer import Item, Parts
from proxy.formats.anthropic_messages.models import Rules, bound, recursive, rules
from proxy.formats.anthropic_messages.request_reader import (
    OwnCall,
    OwnMedia,
    OwnReasoning,
    tool_id,
)
from proxy.formats.anthropic_messages.tool_writer import tool_name, write_tools
from proxy.formats.base import Losses, Target
from proxy.formats.canonical import (
    Message,
    Opaque,
    Reasoning,
    Request,
    Text,
    ToolCall,
    ToolResult,
)
from proxy.formats.reasoning import LEAST

DEFAULT_MAX_TOKENS = 4096  # where neither the request nor the model's entry in the catalog bounds the output
_THINKING_MAX_TOKENS = 16_384  # the same, where the model is to think: that counts, too
_BEGIN = "."  # says nothing, where the API wants a word of the user
_CONTINUE = "Continue."
_NO_RESULT = "No result was given for this call."


def write_request(request: Request, target: Target) -> bytes:
    return msgspec.json.encode(_Writing(request, target).body())


@dataclass(slots=True)
class _Turn:
    """A message to be."""

    role: str
    at: str = ""
    items: list[Item] = field(default_factory=list)

    def has_result(self) -> bool:
        return any(isinstance(part, ToolResult) for part, _ in self.items)


class _Writing:
    __slots__ = ("_losses", "_request", "_rules", "_target")

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self._losses = target.losses
        self._rules = rules(target.model, target.quirks)

    def body(self) -> dict[str, Any]:
        request, losses = self._request, self._losses
        system, turns = _conversation(request, self._rules, losses)
        body: dict[str, Any] = {"model": self._target.model, "max_tokens": self._max_tokens()}
        body |= self._own()
        if system:
            body["system"] = [block for _, block in system]
        tools, choice = write_tools(request, self._rules, losses)
        for tool in request.tools:
            if tool.kind != "server" and tool_name(tool.name) != tool.name:
                self._target.renamed[tool_name(tool.name)] = tool.name
        if tools:
            body["tools"] = tools
        if choice:
            body["tool_choice"] = choice
        self._think(body, turns)
        thinks = _thinks(body)
        _end(turns, self._rules, losses, thinks=thinks)
        body["messages"] = [{"role": turn.role, "content": [block for _, block in turn.items]} for turn in turns]
        self._spare_breakpoints(body, system + [item for turn in turns for item in turn.items])
        self._output(body)
        self._sample(body, thinks=thinks)
        self._say_who(body)
        if request.stream:
            body["stream"] = True
        _name_unsaid(request, losses)
        return body

    def _max_tokens(self) -> int:
        """The API demands it, and it bounds the thoughts too."""
        asked, reasoning = self._request.max_tokens, self._request.reasoning
        if asked is not None:
            return asked
        if reasoning is None or thoughts.is_off(reasoning):
            return self._target.max_output or DEFAULT_MAX_TOKENS
        wanted = (reasoning.budget or 0) + DEFAULT_MAX_TOKENS
        return self._target.max_output or max(_THINKING_MAX_TOKENS, wanted)

    def _own(self) -> dict[str, Any]:
        """Fields that only this format has, as the client wrote them; others' of the same name have other types."""
        found = {}
        kept = _kept(self._request.messages)
        for name, said in self._request.extra.items():
            if isinstance(said, _OWN.get(name, ())):
                found[name] = said
            elif name not in kept:
                self._losses.field(name)
        return found

    def _spare_breakpoints(self, body: dict[str, Any], items: list[Item]) -> None:
        """More than four are refused: the first, of what never changes, and the last serve best.

        https://platform.claude.com/docs/en/build-with-claude/prompt-caching#when-to-use-multiple-breakpoints
        """
        places = {tool_name(tool.name): tool.at for tool in self._request.tools}
        blocks = [(places.get(tool.get("name", ""), "tools"), tool) for tool in body.get("tools", ())]
        for part, block in items:
            blocks += [(part.at, each) for each in block.get("content") or () if block["type"] == "tool_result"]
            blocks.append((part.at, block))
        marked = [(at, block) for at, block in blocks if "cache_control" in block]
        most = _MOST_BREAKPOINTS - ("cache_control" in body)
        if len(marked) > most:
            for at, block in marked[1 : len(marked) - most + 1]:
                del block["cache_control"]
                self._losses.at(f"{at}.cache_control", harmless=True)

    # --- thinking ----------------------------------------------------------------------------------------------------

    def _think(self, body: dict[str, Any], turns: list[_Turn]) -> None:
        reasoning = self._request.reasoning
        if reasoning is None:
            return
        if isinstance(reasoning, OwnReasoning) and reasoning.thinking is None:
            self._effort(body, reasoning)
        elif thoughts.is_off(reasoning):
            self._switch_off(body, reasoning)
        elif self._rules.adaptive and (reasoning.budget is None or not self._rules.budget):
            body["thinking"] = {"type": "adaptive", **self._display(reasoning)}
            self._effort(body, reasoning)
        elif not self._rules.budget or not self._may_spend(body, turns):
            self._losses.field("reasoning")
        else:
            self._spend(body, reasoning)

    def _switch_off(self, body: dict[str, Any], reasoning: Reasoning) -> None:
        if not self._rules.silent:
            self._losses.field("reasoning")
            body["output_config"] = {**body.get("output_config", {}), "effort": "low"}
            return
        own = reasoning.thinking if isinstance(reasoning, OwnReasoning) else None
        body["thinking"] = own or {"type": "disabled"}
        self._effort(body, reasoning)

    def _effort(self, body: dict[str, Any], reasoning: Reasoning) -> None:
        known = self._rules.efforts
        if isinstance(reasoning, OwnReasoning):
            word = thoughts.nearest(reasoning.said_effort, known) if reasoning.said_effort else ""
        elif thoughts.is_off(reasoning):
            return
        else:
            word = thoughts.effort(reasoning, body["max_tokens"], known) if known else ""
        if word:
            body["output_config"] = {**body.get("output_config", {}), "effort": word}
        elif isinstance(reasoning, OwnReasoning) and reasoning.said_effort:
            self._losses.field("reasoning")

    def _may_spend(self, body: dict[str, Any], turns: list[_Turn]) -> bool:
        """A budget goes neither with a demanded tool, nor with a small bound, nor with a tool loop begun without it.

        https://platform.claude.com/docs/en/build-with-claude/extended-thinking#extended-thinking-with-tool-use
        """
        if body.get("tool_choice", {}).get("type") in ("any", "tool") or body["max_tokens"] <= LEAST:
            return False
        return self._rules.unsigned or not _in_unthought_loop(turns)

    def _spend(self, body: dict[str, Any], reasoning: Reasoning) -> None:
        most = body["max_tokens"]
        budget = thoughts.budget(reasoning, most)
        if budget is None:  # it thinks, without a measure
            budget = thoughts.budget(Reasoning(effort="medium"), most) or LEAST
        if budget >= most:
            self._losses.field("reasoning")
            budget = int(most * thoughts.SHARES["high"])
        elif not _says_as_much(reasoning, budget := max(LEAST, budget), most):
            self._losses.at("reasoning", harmless=True)  # as near as a budget comes to it
        budget = min(max(LEAST, budget), most - 1)
        body["thinking"] = {"type": "enabled", "budget_tokens": budget, **self._display(reasoning)}
        if isinstance(reasoning, OwnReasoning):
            self._effort(body, reasoning)

    def _display(self, reasoning: Reasoning) -> dict[str, str]:
        visible = reasoning.visible if reasoning.visible is not None else (bool(reasoning.summary) or None)
        if visible is None or self._rules.unsigned:  # other vendors do not know it
            return {}
        return {"display": "summarized" if visible else "omitted"}

    # --- the other fields --------------------------------------------------------------------------------------------

    def _output(self, body: dict[str, Any]) -> None:
        output = self._request.output
        if output is None or output.kind == "text":
            return
        if output.kind != "json_schema" or not output.schema or not self._rules.structured or recursive(output.schema):
            self._losses.field("output")
            return
        schema, whole = bound(output.schema)
        if not whole:
            self._losses.field("output")
        elif schema != output.schema:
            self._losses.at("output.schema", harmless=True)  # its objects are closed
        if output.description and "description" not in schema:
            schema["description"] = output.description
            self._losses.at("output.description", harmless=True)  # it is the schema's own now
        form = {"type": "json_schema", "schema": schema}
        body["output_config"] = {**body.get("output_config", {}), "format": form}

    def _sample(self, body: dict[str, Any], *, thinks: bool) -> None:
        """With thoughts only what does nothing is allowed, or nearly so.

        https://platform.claude.com/docs/en/build-with-claude/extended-thinking#feature-compatibility
        """
        request, losses, free = self._request, self._losses, self._rules.sampling
        if (temperature := request.temperature) is not None:
            if not 0 <= temperature <= 1:
                losses.field("temperature")
                temperature = min(max(temperature, 0), 1)
            if free and (not thinks or temperature == 1):
                body["temperature"] = temperature
            elif temperature != 1:
                losses.field("temperature")
        if request.top_p is not None:
            alone = self._rules.both or "temperature" not in body
            if free and alone and not (thinks and request.top_p < _TOP_P_OF_THOUGHTS):
                body["top_p"] = request.top_p
            elif request.top_p != 1:
                losses.field("top_p")
        if request.top_k is not None:
            if free and not thinks:
                body["top_k"] = request.top_k
            else:
                losses.field("top_k")

    def _say_who(self, body: dict[str, Any]) -> None:
        request, losses = self._request, self._losses
        stops = [stop for stop in request.stop if stop.strip()]  # white space is refused
        if len(stops) < len(request.stop):
            losses.field("stop")
        if stops:
            body["stop_sequences"] = stops
        if request.user and len(request.user) <= _LONGEST_USER:
            body["metadata"] = {"user_id": request.user}
        elif request.user:
            losses.field("user")
        tier = _TIERS.get(request.service_tier)
        if tier:
            body["service_tier"] = tier
        if request.service_tier and request.service_tier not in _SAME_TIERS:
            losses.field("service_tier")


def _kept(messages: list[Message]) -> set[str]:
    """The paths of what a call or an image of a Messages client holds beyond the canonical: it is written as it was."""
    own = (part for message in messages for part in message.parts if isinstance(part, OwnCall | OwnMedia))
    return {f"{part.at}.{name}" for part in own for name in part.raw}


_OWN: dict[str, type | tuple[type, ...]] = {
    "anthropic_beta": list,
    "anthropic_version": str,
    "billing_policy": dict,
    "cache_control": dict,
    "compaction": dict,
    "container": object,
    "context_management": dict,
    "diagnostics": dict,
    "fallback_credit_token": (str, dict),
    "fallbacks": (list, str),
    "inference_geo": str,
    "mcp_servers": list,
    "output_config": dict,
    "speed": str,
    "thread": dict,
    "user_profile_id": str,
}
_MOST_BREAKPOINTS = 4
_TOP_P_OF_THOUGHTS = 0.95
_LONGEST_USER = 256  # characters
_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
_SAME_TIERS = frozenset({"auto", "default", "standard_only"})


def _thinks(body: dict[str, Any]) -> bool:
    return body.get("thinking", {}).get("type") in ("enabled", "adaptive")


def _says_as_much(reasoning: Reasoning, budget: int, most: int) -> bool:
    return reasoning.budget == budget or reasoning.effort == thoughts.effort(Reasoning(budget=budget), most)


def _name_unsaid(request: Request, losses: Losses) -> None:
    """What Messages have no field for; a value that does nothing is no loss."""
    for name, nothing in _UNSAID.items():
        said = getattr(request, name)
        if said and said != nothing:
            losses.field(name)
        elif said is not None and name in _NUMBERS:
            losses.at(name, harmless=True)
    for name in ("seed", "store"):  # of these, 0 and false say something
        if getattr(request, name) is not None:
            losses.field(name)
    if set(request.modalities) - {"text"}:
        losses.field("modalities")


_NUMBERS = frozenset({"frequency_penalty", "min_p", "presence_penalty", "repetition_penalty"})
_UNSAID: dict[str, Any] = {
    "audio": None,
    "cache_key": "",
    "frequency_penalty": 0,
    "logit_bias": None,
    "logprobs": False,
    "metadata": None,
    "min_p": 0,
    "n": 1,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "top_logprobs": 0,
    "verbosity": "medium",
}


# --- the conversation ------------------------------------------------------------------------------------------------


def _conversation(request: Request, known: Rules, losses: Losses) -> tuple[list[Item], list[_Turn]]:
    """What leads becomes `system`; the rest, turns that follow on each other as the API wants them."""
    messages = list(request.messages)
    leading = 0
    while leading < len(messages) and messages[leading].role in ("system", "developer"):
        leading += 1
    system = [item for message in messages[:leading] for item in _system_items(message, known, losses)]
    turns = _merged(_placed(messages[leading:], known, losses))
    turns = _paired(_without_last_thoughts(turns, losses), losses)
    if not turns and system:  # nothing but instructions: the last of them is what is asked
        losses.at(f"{messages[leading - 1].at}.role")
        turns = [_Turn("user", items=[system.pop()])]
    if not turns or turns[0].role != "user":
        if turns:
            losses.at(turns[0].at, harmless=True)
        else:
            losses.field("messages")
        turns.insert(0, _Turn("user", items=[_words(_BEGIN)]))
    return system, turns


def _words(text: str) -> Item:
    return Text(text), {"type": "text", "text": text}


def _system_items(message: Message, known: Rules, losses: Losses) -> list[Item]:
    """Text only."""
    return Parts("system", known, losses).items(message.parts)


def _placed(messages: list[Message], known: Rules, losses: Losses) -> Iterable[_Turn]:
    """System messages in the middle stand behind a user's turn and before the assistant's, or last.

    https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages. Models that do not take them
    are told as the user's words, marked: in place, where moving them to the top would say them of the whole.
    """
    turns: list[_Turn] = []
    waiting: _Turn | None = None
    for message in messages:
        if message.role in ("system", "developer"):
            items = _system_items(message, known, losses)
            if not known.system:
                turns.append(_as_user(_Turn("user", message.at, items), losses))
            elif waiting is None:
                waiting = _Turn("system", message.at, items)
            else:
                waiting.items += items
            continue
        if message.name:
            losses.at(f"{message.at}.name", harmless=True)
        turn = _Turn(message.role, message.at, Parts(message.role, known, losses).items(message.parts))
        if waiting is not None and message.role == "assistant":
            turns.append(_anchored(waiting, turns, losses))
            waiting = None
        elif waiting is not None and turn.items:
            losses.at(waiting.at, harmless=True)  # moves behind the user's turn
        turns.append(turn)
    if waiting is not None:
        turns.append(_anchored(waiting, turns, losses))
    return turns


def _anchored(turn: _Turn, before: list[_Turn], losses: Losses) -> _Turn:
    last = next((each for each in reversed(before) if each.items), None)
    if last is not None and (last.role == "user" or _ends_in_server_tool(last)):
        return turn
    return _as_user(_Turn("user", turn.at, turn.items), losses)


def _ends_in_server_tool(turn: _Turn) -> bool:
    part = turn.items[-1][0]
    return isinstance(part, Opaque) and part.kind.endswith(("_tool_use", "_tool_result"))


def _as_user(turn: _Turn, losses: Losses) -> _Turn:
    losses.at(f"{turn.at}.role")
    items = []
    for part, block in turn.items:
        if block["type"] == "text":
            items.append((part, {**block, "text": f"<system>\n{block['text']}\n</system>"}))
        else:
            losses.at(part.at)
    turn.items = items
    return turn


def _merged(turns: Iterable[_Turn]) -> list[_Turn]:
    """One turn of the assistant is one message: a tool call's result follows on the whole of it."""
    out: list[_Turn] = []
    for turn in turns:
        if not turn.items:
            continue
        if out and turn.role == out[-1].role == "assistant":
            out[-1].items += turn.items
        else:
            out.append(turn)
    return out


def _without_last_thoughts(turns: list[_Turn], losses: Losses) -> list[_Turn]:
    """The API refuses a message of the assistant that ends with them."""
    for turn in turns:
        while turn.items and turn.items[-1][1]["type"] in ("thinking", "redacted_thinking"):
            losses.at(turn.items.pop()[0].at, harmless=True)
    return [turn for turn in turns if turn.items]


def _paired(turns: list[_Turn], losses: Losses) -> list[_Turn]:
    """Each call's result stands first in the message behind the call, and no result elsewhere.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls#handle-results-from-client-tools
    """
    out: list[_Turn] = []
    for head, rest in _groups(turns):
        if head is not None:
            out.append(head)
        calls = {tool_id(part.id): part for part, _ in head.items if isinstance(part, ToolCall)} if head else {}
        together = bool(rest) and rest[0].has_result()
        results: list[Item] = []
        for turn in rest:
            turn.items = _without_results(turn, calls, results, losses)
        results += [_no_result(call, losses) for call in calls.values()]
        if results and together:
            rest[0].items = results + rest[0].items
        elif results:
            out.append(_Turn("user", items=results))
        out += [turn for turn in rest if turn.items]
    return out


def _groups(turns: list[_Turn]) -> list[tuple[_Turn | None, list[_Turn]]]:
    """Each turn of the assistant with those behind it."""
    groups: list[tuple[_Turn | None, list[_Turn]]] = []
    for turn in turns:
        if turn.role == "assistant":
            groups.append((turn, []))
        else:
            if not groups:
                groups.append((None, []))
            groups[-1][1].append(turn)
    return groups


def _without_results(turn: _Turn, calls: dict[str, ToolCall], results: list[Item], losses: Losses) -> list[Item]:
    """The results of `calls` go to `results`; others, which the API would refuse, are said in words."""
    kept: list[Item] = []
    for part, block in turn.items:
        if not isinstance(part, ToolResult):
            kept.append((part, block))
        elif calls.pop(block["tool_use_id"], None) is not None:
            results.append((part, block))
        else:
            losses.at(part.at)
            kept.append(_words(f"Result of the tool call {part.call_id}:"))
            kept += [(part, each) for each in block.get("content", ()) if each["type"] in _OF_USERS]
    return kept


_OF_USERS = frozenset({"text", "image", "document", "search_result"})


def _no_result(call: ToolCall, losses: Losses) -> Item:
    losses.at(call.at)
    content = [{"type": "text", "text": _NO_RESULT}]
    block = {"type": "tool_result", "tool_use_id": tool_id(call.id), "content": content, "is_error": True}
    return ToolResult(call.id, []), block


def _in_unthought_loop(turns: list[_Turn]) -> bool:
    """The last tool calls were made without thoughts, or they are lost: with a budget, the API refuses to go on."""
    groups = _groups(turns)
    if not groups or groups[-1][0] is None:
        return False
    head, rest = groups[-1]
    answered = any(turn.has_result() for turn in rest)
    return answered and head is not None and head.items[0][1]["type"] not in ("thinking", "redacted_thinking")


def _end(turns: list[_Turn], known: Rules, losses: Losses, *, thinks: bool) -> None:
    """Where the assistant's words are last, the model goes on with them: not all do, and none while it thinks."""
    last = turns[-1]
    part, block = last.items[-1]
    if last.role != "assistant" or block["type"] != "text":
        return
    if thinks or not known.prefill:
        losses.at(last.at)
        turns.append(_Turn("user", items=[_words(_CONTINUE)]))
        return
    text = block["text"].rstrip()  # white space there is refused
    if text != block["text"]:
        losses.at(part.at, harmless=True)
        last.items[-1] = (part, {**block, "text": text})
