"""The provider behind the gateway while an agent works: it has the agent's own tools write two files, then says so.

It is `tests.providers`, as strict as the vendors, with this one scenario. Caller: `run`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from tests.providers import Providers, scenario
from tests.providers.scenario import Asked, Call, Refused, Said, Tool

FILES = {"first.txt": f"{scenario.SENTENCE}\n", "second.txt": '{"second": [1, "ü"]}\n'}
FINAL = "Beide Dateien sind geschrieben: 東京 🗼 ist fertig."
TITLE = "Two files"
EDIT_BLOCK = "SEARCH/REPLACE"  # how an agent without tools asks for edits


class Scripted(Providers):
    """Each request of the agent that works in `folder` gets the next step of its task."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(Path())

    def begin(self, folder: Path) -> None:
        self.forget()
        self.folder = folder
        self.called: list[str] = []  # the files of the last calls

    def says(self, asked: Asked) -> Said:
        if EDIT_BLOCK in asked.system + asked.user:
            return Said("\n".join([*map(_edit_block, FILES), FINAL]))
        if not asked.tools:  # some ask for a title of the conversation beside
            return Said(TITLE)
        thought = scenario.THOUGHT if asked.thinks else ""
        if asked.results:
            self._check(asked.results)
        if not (missing := self._missing(FILES)):
            return Said(FINAL, thought=thought)
        self.called = missing if asked.parallel else missing[:1]
        return Said(thought=thought, calls=self._calls(_writer(asked.tools)), finish="calls")

    def _missing(self, names: Sequence[str] | Mapping[str, str]) -> list[str]:
        return [name for name in names if not (self.folder / name).exists()]

    def _check(self, results: Sequence[str]) -> None:
        if len(results) != len(self.called):
            raise Refused.request(f"There were {len(self.called)} calls, and these are their results: {results}")
        if missing := self._missing(self.called):
            raise Refused.request(f"The calls did not write {missing}, and said: {results}")

    def _calls(self, tool: Tool) -> list[Call]:
        write = _WRITERS[tool.name]
        return [
            Call(tool.name, write(tool, self.folder / name, FILES[name]), number)
            for number, name in enumerate(self.called)
        ]


def _writer(tools: Sequence[Tool]) -> Tool:
    """Of the tools that can write a file, the one that agents want used for it."""
    known = {tool.name: tool for tool in tools}
    found = next((known[name] for name in _WRITERS if name in known), None)
    if found is None:
        raise Refused.request(f"None of these tools writes a file: {list(known)}")
    return found


# --- the agents' tools, as their schemas and descriptions have them ---------------------------------------------------

Arguments = dict[str, Any]


def _file(tool: Tool, path: Path, text: str) -> Arguments:
    place = next((name for name in ("file_path", "filePath", "filepath") if name in tool.schema["properties"]), None)
    if place is None:
        raise Refused.request(f"The schema of {tool.name} has no path: {tool.schema}")
    return {place: str(path), "content": text}


def _patch(_: Tool, path: Path, text: str) -> Arguments:
    """A custom tool; where a provider has none, it comes as a function of one text."""
    lines = "".join(f"+{line}\n" for line in text.splitlines())
    return {"input": f"*** Begin Patch\n*** Add File: {path.name}\n{lines}*** End Patch\n"}


def _command(_: Tool, path: Path, text: str) -> Arguments:
    return {"cmd": f"cat > {quote(str(path))} <<'END'\n{text}END\n"}


def _program(tool: Tool, path: Path, text: str) -> Arguments:
    """JavaScript, in which the other tools are functions."""
    return {"input": f"text(await tools.exec_command({json.dumps(_command(tool, path, text))}));\n"}


_WRITERS: Mapping[str, Callable[[Tool, Path, str], Arguments]] = {
    "Write": _file,  # Claude Code, Continue
    "write": _file,  # opencode
    "write_file": _file,  # gemini-cli
    "apply_patch": _patch,  # Codex, with models that it knows
    "exec_command": _command,  # Codex
    "functions__exec": _program,  # Codex, with its latest models: `exec` in the namespace `functions`
}


def _edit_block(name: str) -> str:
    """https://aider.chat/docs/more/edit-formats.html#diff"""
    return f"{name}\n```\n<<<<<<< SEARCH\n=======\n{FILES[name]}>>>>>>> REPLACE\n```\n"
