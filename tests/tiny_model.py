"""A real model server for the tests: llama.cpp's own, over a model small enough to make on the spot (`tiny_gguf`).

It does what a provider does: tokens, sampling, streaming, `max_tokens`, `stop`, usage, keys. `conftest` starts it.
"""

import re
import sys
from pathlib import Path

from tests.processes import Process, clean_environment

WORDS = ("Every", "answer", "of", "this", "tiny", "model", "is", "the", "same", ".")
SENTENCE = " ".join(WORDS[:-1]) + WORDS[-1]
TOKENS_OUT = len(WORDS) + 1  # the end of the text counts
API_KEY = "sk-tiny"
NAME = "tiny"
_LISTENING = re.compile(r"\blistening (http://\S+)$", re.MULTILINE)  # llama.cpp's log may have begun the line


class TinyModel:
    """The running server. `base_url`, `api_key` and `name` are what a catalog entry needs."""

    api_key = API_KEY
    name = NAME
    sentence = SENTENCE

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.tiny_gguf", folder]
        self.process = Process(command, log=folder / "tiny_model.log", env=clean_environment(), cwd=folder)
        self.process.until_ready(self._address, seconds=60)
        self.base_url = f"{self._address()}/v1"

    def _address(self) -> str:
        found = _LISTENING.search(self.process.log.read_text(encoding="utf-8", errors="replace"))
        return found[1] if found else ""

    def stop(self) -> None:
        self.process.stop()
