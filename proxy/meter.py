"""What an answer used and what it costs; and a count of our own where the provider says nothing.

Called by `relay`. Counts use OpenAI's o200k_base, whatever the model: a row that was counted here says `estimated`.
The vocabulary is OpenAI's file, kept in `proxy/data` because tiktoken would fetch it from the network.
"""

import asyncio
import functools
import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import tiktoken
from django.conf import settings

from models_catalog import pricing
from models_catalog.pricing import Price
from models_catalog.snapshot import Model
from proxy.errors import BadRequest
from proxy.formats.base import Client, Pricer, Prompt
from proxy.formats.canonical import Usage
from proxy.formats.splice import Members

_VOCABULARY = Path(__file__).parent / "data" / "o200k_base.tiktoken.gz"
_CACHE_NAME = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"  # tiktoken's name for the file
_LONGEST_TOKEN = 128  # characters, of o200k_base
_MOST_ESCAPED = 6  # bytes of JSON for one of them
SAMPLE = 20_000  # characters counted on the event loop (0.8 ms); more is extrapolated
# Overhead of the chat format, and a 1024 × 1024 image in high detail, as OpenAI's documentation counts them.
_PER_MESSAGE, _PRIMING, _PER_IMAGE = 3, 3, 765


@functools.cache
def encoding() -> tiktoken.Encoding:
    """Takes 0.3 s the first time: the background thread calls it at the start."""
    folder = settings.DATA_DIR / "tiktoken"
    file = folder / hashlib.sha1(_CACHE_NAME.encode(), usedforsecurity=False).hexdigest()
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_bytes(gzip.decompress(_VOCABULARY.read_bytes()))
        draft.replace(file)
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)  # it verifies the file's hash
    return tiktoken.get_encoding("o200k_base")


def count(text: str) -> int:
    """Tokens in the text, whole."""
    return len(encoding().encode_ordinary(text))


def estimate(text: str) -> int:
    """Tokens in the text; of a long one, a part is counted."""
    if len(text) <= SAMPLE:
        return count(text)
    return count(text[:SAMPLE]) * len(text) // SAMPLE


def prompt_tokens(client: Client, members: Members, counter: Callable[[str], int] = estimate) -> int:
    """Tokens of a request: its messages and its tools."""
    return tokens_of(client.prompt(members), counter)


def tokens_of(prompt: Prompt, counter: Callable[[str], int] = estimate) -> int:
    return counter(prompt.text) + prompt.messages * _PER_MESSAGE + prompt.images * _PER_IMAGE + _PRIMING


async def check_context(client: Client, members: Members, model: Model) -> None:
    """Where the model's limits are enforced: raises `BadRequest` (400) for a prompt over its context window."""
    if not model.enforce or not model.context:
        return
    size = len(members.text)
    if size > model.context * _LONGEST_TOKEN * _MOST_ESCAPED:
        tokens = size // (_LONGEST_TOKEN * _MOST_ESCAPED)  # at least: there is no need to count
    elif size <= SAMPLE:
        tokens = prompt_tokens(client, members, count)
    else:
        tokens = await asyncio.to_thread(prompt_tokens, client, members, count)
    if tokens > model.context:
        raise BadRequest(
            f"The context window of {model.id!r} is {model.context} tokens; this prompt has {tokens}.",
            param=client.FIELDS.get("messages", "messages"),
            code="context_length_exceeded",
            retry=False,
        )


def counted(client: Client, members: Members, said: str) -> Usage:
    """Usage where the provider sent none."""
    return Usage(prompt=prompt_tokens(client, members), completion=estimate(said))


def cost(price: Price | None, usage: Usage) -> int | None:
    """Picodollars; None where the model has no price."""
    return pricing.cost(price, usage.prompt, usage.completion, usage.cached, usage.written)


def pricer(price: Price | None) -> Pricer:
    """What an answer's `usage` gains: `cost` and `cache_discount` in USD, `cached_tokens`."""

    def gains(usage: Usage) -> dict[str, bytes]:
        cached = min(usage.cached, usage.prompt)
        found = {"cached_tokens": b"%d" % cached}
        spent = cost(price, usage)
        if spent is not None:
            found["cost"] = _json(spent)
            found["cache_discount"] = _json(pricing.discount(price, cached))
        return found

    return gains


def _json(picodollars: int) -> bytes:
    if not picodollars:
        return b"0"
    whole, rest = divmod(picodollars, pricing.PICODOLLARS)
    return (b"%d.%012d" % (whole, rest)).rstrip(b"0") if rest else b"%d" % whole
