"""`GET /v1/models` and `GET /v1/models/{id}`: the models that can answer now. Called by `asgi`."""

import time
from typing import Any

import msgspec

from models_catalog import pricing
from models_catalog.snapshot import Model, Snapshot
from proxy import errors, replies, request_ids
from proxy.background import Tables
from proxy.ingress import Receive, Scope, Send

_JSON = (b"content-type", b"application/json")
_PARAMETERS = ("max_tokens", "temperature", "top_p", "stop", "stream")
_SUPPORTED_BY = {
    "tools": ("tools", "tool_choice"),
    "structured_outputs": ("response_format",),
    "reasoning": ("reasoning_effort",),
}
# Output price in USD per million tokens up to which a model is of a tier.
_CHEAP, _BALANCED = 1.0, 10.0


class Listing:
    """Keeps each snapshot's answer as bytes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._of: Snapshot | None = None
        self._until = 0.0
        self._all = b""

    async def all(self, scope: Scope, receive: Receive, send: Send) -> None:
        catalog = self._tables.catalog
        if self._of is not catalog or time.time() >= self._until:
            now = time.time()
            data = [describe(model, now) for model in catalog.models.values() if model.routes]
            self._all = msgspec.json.encode({"object": "list", "data": data, "aliases": catalog.aliases})
            self._of, self._until = catalog, now + 60  # a price can come into force without a new snapshot
        await self._send(scope, send, self._all)

    async def one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ids hold slashes, as they are or as %2F."""
        name = scope["path"].removeprefix("/v1/models/")
        catalog = self._tables.catalog
        model = catalog.models.get(catalog.aliases.get(name, name))
        if model is None or not model.routes:
            refusal = errors.ModelNotFound(f"The model {name[:200]!r} does not exist here.", param="model", retry=False)
            headers = [*replies.error_headers(refusal), *replies.common(request_ids.new(), scope)]
            await replies.answer(send, refusal.status, headers, replies.error_body(refusal))
            return
        await self._send(scope, send, msgspec.json.encode(describe(model, time.time())))

    async def _send(self, scope: Scope, send: Send, body: bytes) -> None:
        await replies.answer(send, 200, [_JSON, *replies.common(request_ids.new(), scope)], body)


def describe(model: Model, now: float) -> dict[str, Any]:
    """A model in OpenAI's shape, with what the public API adds. What the catalog does not know is null."""
    price = pricing.in_force(model.prices, now)
    known = price if price is not None and price.input is not None and price.output is not None else None
    input_usd = known.input / 1e6 if known and known.input is not None else None
    output_usd = known.output / 1e6 if known and known.output is not None else None
    parameters = [*_PARAMETERS, *(name for kind in sorted(model.supports) for name in _SUPPORTED_BY.get(kind, ()))]
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.vendor.slug,
        "name": model.name,
        "description": model.description or None,
        "context_window": model.context,
        "max_output_tokens": model.output,
        "input_modalities": model.input_modalities,
        "output_modalities": model.output_modalities,
        "supported_parameters": parameters,
        "supports_tools": "tools" in model.supports,
        "supports_vision": "vision" in model.supports,
        "supports_reasoning": "reasoning" in model.supports,
        "supports_structured_outputs": "structured_outputs" in model.supports,
        "cost_tier": _tier(output_usd),
        "pricing": {"input_per_1m": input_usd, "output_per_1m": output_usd},
        "cost": {"input": input_usd, "output": output_usd},
        "gateway_output_limit": model.output if model.enforce else None,
        "max_tokens_passthrough": not model.enforce,
        "available_groups": sorted({group for route in model.routes for group in route.provider.groups}),
    }


def _tier(output_usd: float | None) -> str | None:
    if output_usd is None:
        return None
    return "cheap" if output_usd <= _CHEAP else "balanced" if output_usd <= _BALANCED else "premium"
