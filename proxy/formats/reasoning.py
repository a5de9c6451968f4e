"""How much a model is to think: one table between efforts, token budgets and levels. Called by the formats' writers.

OpenAI: `reasoning_effort` none … xhigh. Anthropic: `thinking.budget_tokens`, at least 1,024 and under `max_tokens`, and
`output_config.effort` low … max. Gemini: `thinkingConfig.thinkingBudget` (-1: the model decides) or `thinkingLevel`.
The shares of the output are OpenRouter's: https://openrouter.ai/docs/use-cases/reasoning-tokens
"""

from proxy.formats.canonical import Reasoning

SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}
LEAST = 1024  # tokens, Anthropic's least budget
_UNBOUNDED = 32_768  # tokens, where the request does not bound its output
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def is_off(reasoning: Reasoning) -> bool:
    return reasoning.effort == "none" or reasoning.budget == 0 or (reasoning.enabled is False and not reasoning.effort)


def effort(reasoning: Reasoning, max_tokens: int | None, known: tuple[str, ...] = _EFFORTS) -> str:
    """The effort in words, the nearest of `known`; empty where the client only said that it thinks, or adapts."""
    if is_off(reasoning):
        return "none" if "none" in known else known[0]
    word = reasoning.effort
    if not word and reasoning.budget is not None and reasoning.budget > 0:
        share = reasoning.budget / (max_tokens or _UNBOUNDED)
        word = next((name for name, most in SHARES.items() if share <= most + 0.001), "xhigh")
    return nearest(word, known) if word else ""


def nearest(word: str, known: tuple[str, ...]) -> str:
    """`word`, else the next lower one that is known, else the next higher."""
    if word in known or word not in _EFFORTS:
        return word
    place = _EFFORTS.index(word)
    lower = [name for name in _EFFORTS[:place] if name in known and name != "none"]
    higher = [name for name in _EFFORTS[place:] if name in known]
    return (lower[-1:] or higher[:1] or [""])[0]


def budget(reasoning: Reasoning, max_tokens: int | None) -> int | None:
    """Tokens; 0: off. None where the model is to decide."""
    if is_off(reasoning):
        return 0
    if reasoning.budget is not None and reasoning.budget > 0:
        return reasoning.budget
    if reasoning.effort in SHARES:
        return max(LEAST, int((max_tokens or _UNBOUNDED) * SHARES[reasoning.effort]))
    return None
