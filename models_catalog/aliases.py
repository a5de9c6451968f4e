"""The nine named aliases: which model each stands for where the operator has set none. `snapshot.load` calls `choose`.

What the catalog says of the models decides: prices, context, abilities, and their order on the docs page, which is the
last word. Speed it does not tell: there, names do.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

# Work that takes many tokens goes to the best model up to this price: 15 USD per million tokens of output.
_EVERYDAY = 15 * 10**6
_ABILITIES = frozenset({"tools", "reasoning", "structured_outputs"})
_QUICK = re.compile(r"(?<![a-z])(fast|flash|haiku|instant|lite|mini|nano|small|turbo)(?![a-z])", re.IGNORECASE)
_CODING = re.compile(r"cod(e|ing|estral)|devstral", re.IGNORECASE)
_PREVIEW = re.compile(r"(?<![a-z])(alpha|beta|exp|experimental|preview)(?![a-z])", re.IGNORECASE)
_RETIRED = re.compile(r"\b(deprecated|retired)\b", re.IGNORECASE)
# A list of models often tells nothing but their names, and some of them do not chat.
_OTHER_KIND = re.compile(
    r"embed|bge-|rerank|moderation|guard|image|dall-e|whisper|transcri|realtime|(?<![a-z])(asr|ocr|tts)(?![a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that can answer with text now. Prices: picodollars per token, None: not known."""

    name: str
    input: int | None = None
    output: int | None = None
    context: int | None = None
    supports: frozenset[str] = frozenset()
    sees: bool = False
    description: str = ""
    is_demo: bool = False

    @property
    def is_first_class(self) -> bool:
        """Others stand for an alias only where none of these can: a price that is 0 may be one that nobody entered."""
        return bool(self.input and self.output) and not _RETIRED.search(self.description)

    @property
    def cost(self) -> int:
        """Of three tokens of input and one of output."""
        return 3 * (self.input or 0) + (self.output or 0)

    @property
    def merit(self) -> tuple[int, int, bool]:
        """Abilities first: among those that have as many, what costs more is held to be better."""
        return len(self.supports & _ABILITIES), self.cost, not _PREVIEW.search(self.name)


Models = Sequence[Candidate]


def _affordable(models: Models) -> Models:
    return [model for model in models if (model.output or 0) <= _EVERYDAY] or models


def _able(models: Models, ability: str) -> Models:
    return [model for model in models if ability in model.supports]


def _best(models: Models) -> Candidate | None:
    return max(models, key=lambda model: model.merit, default=None)


def _cheap(models: Models) -> Candidate | None:
    return min(models, key=lambda model: (model.cost, -len(model.supports)), default=None)


def _fast(models: Models) -> Candidate | None:
    """One that is sold as quick, and answers without thinking first."""

    def speed(model: Candidate) -> tuple[bool, bool, bool, int]:
        thinks, quick = "reasoning" in model.supports, bool(_QUICK.search(model.name))
        return quick, not thinks, "tools" in model.supports, -model.cost

    return max(models, key=speed, default=None)


def _code(models: Models) -> Candidate | None:
    able = _affordable(_able(models, "tools") or models)
    return max(able, key=lambda model: (*model.merit, bool(_CODING.search(model.name))), default=None)


def _long_context(models: Models) -> Candidate | None:
    known = [model for model in models if model.context]
    return max(known, key=lambda model: (model.context, len(model.supports), -model.cost), default=None)


def _balanced(models: Models) -> Candidate | None:
    """From the middle of the price list of the ablest."""
    most = max((model.merit[0] for model in models), default=0)
    ablest = sorted((model for model in models if model.merit[0] == most), key=lambda model: model.cost)
    middle = ablest[(len(ablest) - 1) // 2].cost if ablest else 0
    return next((model for model in ablest if model.cost == middle), None)


_CHOICES: dict[str, Callable[[Models], Candidate | None]] = {
    "best": _best,
    "fast": _fast,
    "code": _code,
    "cheap": _cheap,
    "long-context": _long_context,
    "vision": lambda models: _best(_affordable([model for model in models if model.sees])),
    "reasoning": lambda models: _best(_able(models, "reasoning")),
    "agent": lambda models: _best(_affordable(_able(models, "tools"))),
    "balanced": _balanced,
}
NAMES = tuple(_CHOICES)


def choose(candidates: Iterable[Candidate], taken: Collection[str]) -> dict[str, str]:
    """The model of each alias that is not `taken` and for which there is one. Equals: the first of `candidates`."""
    chatting = [model for model in candidates if not _OTHER_KIND.search(model.name)]
    there = [model for model in chatting if not model.is_demo] or chatting
    first = [model for model in there if model.is_first_class]
    rest = [model for model in there if not model.is_first_class]
    found = {name: choice(first) or choice(rest) for name, choice in _CHOICES.items() if name not in taken}
    return {name: model.name for name, model in found.items() if model is not None}
