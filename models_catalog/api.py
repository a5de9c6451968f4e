"""GET /v1/credits/pricing: what each model costs now, for everyone. `kodna/urls.py` has its path."""

import time
from functools import lru_cache

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from models_catalog import pricing, snapshot
from models_catalog.pricing import Price


class PricingView(APIView):
    """The models that `/v1/models` lists, USD per million tokens. Null: not known, or no price of its own."""

    authentication_classes = ()

    def get(self, request: Request) -> Response:
        now = time.time()
        models = _prices(snapshot.version())
        data = [{"id": name, **_described(pricing.in_force(prices, now))} for name, prices in models]
        return Response({"object": "list", "currency": "USD", "data": data})


@lru_cache(maxsize=1)
def _prices(version: int) -> tuple[tuple[str, tuple[Price, ...]], ...]:
    """Read once per version. Only names and prices are kept: the snapshot holds credentials."""
    return tuple((model.id, model.prices) for model in snapshot.load().models.values() if model.routes)


def _described(price: Price | None) -> dict[str, float | None]:
    kinds = ("input", "output", "cached_input", "cache_write")
    return {f"{kind}_per_1m": _per_million(getattr(price, kind, None)) for kind in kinds}


def _per_million(picodollars: int | None) -> float | None:
    """From a token's price, as `/v1/models` has it."""
    return None if picodollars is None else picodollars / 1e6
