"""The console's page Explain: how a request would be routed now, with the reasons. `proxy.admin` imports it.

It shows the plan of the process that serves the page, whose live `Gateway` is in the request's scope (`kodna.asgi`).
What is typed into it is neither kept nor logged.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from accounts import keys
from accounts.keys import Key, KeyTable
from models_catalog.snapshot import Snapshot
from proxy import errors, ingress, routing
from proxy.errors import Refusal
from proxy.explain import Dropped, Explanation, explain, find_home, refused
from proxy.formats import anthropic_messages, gemini, openai_chat, openai_completions, openai_responses
from proxy.formats.base import Client
from proxy.gateway import Gateway
from proxy.ingress import Asked, Envelope

TEMPLATE = "admin/proxy/explain.html"
OFFERED = 500  # keys in the list; any other is found by its name or its beginning
_MATCHES = 5  # keys that are named where more than one fits
_PERMISSIONS = ("proxy.view_usagerecord", "models_catalog.view_provider")
_OF_KEYS = "accounts.view_apikey"
_NOBODY: frozenset[str] = frozenset()
NO_KEY = Key(0, "no key: all rights", "", 0, "", True, 0, _NOBODY, _NOBODY, (), 0, 0, 0)
_PREFIX = re.compile(rf"{keys.MARK}[0-9A-Za-z]{{{keys.SHOWN - len(keys.MARK)}}}")


@dataclass(frozen=True)
class Form:
    """A format to choose. `example`: a small request of it."""

    client: Client
    title: str
    example: str

    @property
    def name(self) -> str:
        return self.client.ENDPOINT


FORMS = {
    form.name: form
    for form in (
        Form(openai_chat, "OpenAI chat", '{"messages": [{"role": "user", "content": "Hello"}]}'),
        Form(openai_responses, "OpenAI Responses", '{"input": "Hello"}'),
        Form(
            anthropic_messages,
            "Anthropic Messages",
            '{"max_tokens": 1024, "messages": [{"role": "user", "content": "Hello"}]}',
        ),
        Form(gemini, "Gemini", '{"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}'),
        Form(openai_completions, "OpenAI completions", '{"prompt": "Hello"}'),
    )
}


@dataclass
class Page:
    """What was typed in, and what there is to say to it."""

    model: str = ""
    key: str = ""
    groups: str = ""
    format: str = openai_chat.ENDPOINT
    stream: bool = False
    body: str = ""
    found: Explanation | None = None
    refusal: Refusal | None = None
    dropped: Sequence[Dropped] = field(default_factory=tuple)


def live(request: HttpRequest) -> Gateway | None:
    """None: another server than the gateway's serves this page, as `manage.py runserver` does."""
    found: Gateway | None = getattr(request, "scope", {}).get("kodna.gateway")
    return found


@sensitive_post_parameters("body", "key")
def explain_page(request: HttpRequest) -> HttpResponse:
    user = request.user
    if not all(user.has_perm(name) for name in _PERMISSIONS):
        raise PermissionDenied
    gateway, with_keys = live(request), user.has_perm(_OF_KEYS)
    page = _read(request) if request.method == "POST" else Page(model=request.GET.get("model", ""))
    if gateway is not None and request.method == "POST":
        _answer(page, gateway, with_keys)
    offered = {} if gateway is None else _offered(gateway, with_keys)
    shown = {
        "page": page,
        "forms": FORMS.values(),
        "example": FORMS[page.format].example,
        "gateway": gateway,
        "with_keys": with_keys,
        "cost": _cost(page.found),
    }
    context = {**admin.site.each_context(request), "title": "Explain", "content_title": "Explain"}
    return TemplateResponse(request, TEMPLATE, {**context, **shown, **offered})


def _cost(found: Explanation | None) -> str:
    if found is None or found.estimate.cost is None:
        return "no price is known"
    least, most = (f"{amount:f}" for amount in (found.estimate.cost.least, found.estimate.cost.most))
    return least if least == most else f"{least} to {most}"


def _read(request: HttpRequest) -> Page:
    asked = request.POST
    named = asked.get("format", "")
    return Page(
        model=asked.get("model", "").strip(),
        key=asked.get("key", "").strip(),
        groups=asked.get("groups", "").strip(),
        format=named if named in FORMS else openai_chat.ENDPOINT,
        stream="stream" in asked,
        body=asked.get("body", "").strip(),
    )


@sensitive_variables("body", "envelope")
def _answer(page: Page, gateway: Gateway, with_keys: bool) -> None:
    """As the request itself would go, up to where it would leave the gateway."""
    try:
        key = _key(page, gateway.tables.keys) if with_keys else NO_KEY
        if trouble := key.trouble():
            raise errors.BadKey(trouble)
        envelope = _envelope(page, key)
        target = routing.resolve(envelope.model, gateway.tables.catalog, key)
    except Refusal as refusal:
        page.refusal = refusal
        return
    try:
        conversation = async_to_sync(find_home)(gateway, envelope, key, target.model)  # on the loop: it may ask Redis
        page.found = explain(gateway, envelope, target, key, conversation, tells=True)
        page.dropped = page.found.dropped
    except Refusal as refusal:
        page.refusal = refusal
        page.dropped = refused(gateway, envelope, target, key, tells=True)


def _envelope(page: Page, key: Key) -> Envelope:
    """Raises `BadRequest`."""
    form = FORMS[page.format]
    stream = True if page.stream else False if form.client is gemini else None  # Gemini's body does not say it
    body = (page.body or form.example).encode(errors="replace")
    envelope = ingress.read_envelope(body, Asked(form.client, page.model, stream))
    ingress.read_headers(envelope, {"headers": []}, strict=key.strict)
    if groups := tuple(page.groups.replace(",", " ").split()):
        envelope.groups = groups
    return envelope


def _key(page: Page, table: KeyTable) -> Key:
    """By its beginning, its name, or itself: that is not shown again. Raises `BadRequest`."""
    text, page.key = page.key, page.key[: keys.SHOWN] if keys.well_formed(page.key) else page.key
    if not text:
        return NO_KEY
    found = [key for key in table.all() if _fits(key, text)]
    if len(found) == 1:
        page.key = _label(found[0])
        return found[0]
    if not found:
        raise errors.BadRequest("There is no such API key.", param="key")
    names = ", ".join(_label(key) for key in found[:_MATCHES])
    more = f" and {len(found) - _MATCHES} more" if len(found) > _MATCHES else ""
    raise errors.BadRequest(f"More than one API key is called so: {names}{more}.", param="key")


def _fits(key: Key, text: str) -> bool:
    prefix = _PREFIX.search(text)
    return key.prefix == prefix[0] if prefix else text.lower() in key.name.lower()


def _label(key: Key) -> str:
    return f"{key.name or 'no name'} ({key.prefix}…)" if key.prefix else key.name


def _offered(gateway: Gateway, with_keys: bool) -> dict[str, Any]:
    catalog = gateway.tables.catalog
    return {
        "models": sorted([*catalog.models, *catalog.aliases]),
        "groups": _groups(catalog),
        "keys": [_label(key) for key in gateway.tables.keys.all()[:OFFERED]] if with_keys else [],
        "default_model": catalog.default_model,
    }


def _groups(catalog: Snapshot) -> list[str]:
    routes = (route for model in catalog.models.values() for route in model.routes)
    return sorted({group for route in routes for group in route.provider.groups})


def _urls() -> list[URLPattern]:
    return [path("explain/", admin.site.admin_view(explain_page), name="explain")]


admin.site.extra_urls = _urls  # type: ignore[attr-defined]  # unfold's site asks for it
