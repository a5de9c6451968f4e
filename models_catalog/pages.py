"""The docs page at `/`: what this server offers and how to use it, from the live catalog. `urls.py` routes here."""

import json
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.text import slugify
from django.utils.translation import get_language, ngettext_lazy
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import conditional_page, require_safe

from models_catalog import snapshot

# Nothing but the page's own style sheet, script and images; no form, no frame.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_NO_MODEL = "your-model-id"  # stands in the snippets while the catalog is empty
_SECONDS = ngettext_lazy("%d second", "%d seconds")
_UNITS = (
    (86_400, ngettext_lazy("%d day", "%d days")),
    (3_600, ngettext_lazy("%d hour", "%d hours")),
    (60, ngettext_lazy("%d minute", "%d minutes")),
)


@dataclass(frozen=True, slots=True)
class ModelRow:
    id: str
    context: str
    output: str
    live: bool


@dataclass(frozen=True, slots=True)
class VendorGroup:
    anchor: str
    name: str
    models: tuple[ModelRow, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """The model in the snippets. `literal` is its id as a string of JSON, Python, JavaScript, YAML and TOML at once."""

    id: str
    literal: str
    shell: str
    path: str
    cody_id: str
    context: int | None
    output: int | None
    tools: bool
    vision: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """What the page takes from the catalog."""

    vendors: tuple[VendorGroup, ...]
    aliases: tuple[tuple[str, str], ...]
    example: Example
    default_model: str
    model_count: int
    live_count: int
    announcements: tuple[snapshot.Announcement, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that can differ from one copy of the page to another: equal pages are rendered once.

    `announcements`: those in force, and until when.
    """

    listing: Listing
    announcements: tuple[tuple[snapshot.Announcement, datetime | None], ...]
    base_url: str
    service: str
    version: str
    key_help: str
    contact: str
    rps: int
    rpm: int
    tpm: int
    concurrency: int
    body_limit: str
    body_timeout: str
    keepalive: str
    held: str
    no_auth: bool

    @property
    def root_url(self) -> str:
        """For the SDKs that add the API's version themselves: Anthropic's and Google's."""
        return self.base_url.removesuffix("/v1")


def compact(tokens: int | None) -> str:
    """128000 → 128K, 1048576 → 1M, 1500 → 1.5K: whole where that is within 5 percent, else one decimal."""
    if tokens is None:
        return "—"
    if tokens < 1_000:
        return str(tokens)
    unit, letter = (1_000_000, "M") if tokens >= 999_500 else (1_000, "K")
    whole = (tokens + unit // 2) // unit
    if abs(tokens - whole * unit) * 20 <= tokens:
        return f"{whole}{letter}"
    return f"{(tokens * 10 + unit // 2) // unit / 10:g}{letter}"


def size(length: int) -> str:
    """Bytes for people, in the binary units that the setting is given in."""
    for unit, letter in ((1024**3, "GB"), (1024**2, "MB"), (1024, "KB")):
        if length >= unit:
            return f"{length / unit:.4g} {letter}"
    return f"{length} bytes"


def lifetime(seconds: int) -> str:
    """86400 → 24 hours: in the largest unit that there is more than one of, and no part of one. Empty for none."""
    if not seconds:
        return ""
    for unit, words in _UNITS:
        if seconds > unit and seconds % unit == 0:
            return words % (seconds // unit)
    return _SECONDS % seconds


def base_url(request: HttpRequest) -> str:
    """What clients are given: the operator's URL where one is set, else the one this request came to. Ends in /v1."""
    url = (settings.PUBLIC_BASE_URL or f"{request.scheme}://{request.get_host()}").rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def example_model(catalog: snapshot.Snapshot) -> snapshot.Model | None:
    """The default model where it is live, else the first live one, else the first."""
    models = list(catalog.models.values())
    default = catalog.models.get(catalog.aliases.get(catalog.default_model, catalog.default_model))
    if default is not None and default.routes:
        return default
    return next((model for model in models if model.routes), models[0] if models else None)


def _example(model: snapshot.Model | None) -> Example:
    name = model.id if model else _NO_MODEL
    return Example(
        id=name,
        # An apostrophe would end the shell's quotes around a JSON body; its escape is the same in all these languages.
        literal=json.dumps(name, ensure_ascii=False).replace("'", "\\u0027"),
        shell=shlex.quote(name),
        path=quote(name, safe="/:@"),
        # Cody's model references take no slash: https://sourcegraph.com/docs/cody/enterprise/model-configuration
        cody_id=re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model",
        context=model.context if model else None,
        output=model.output if model else None,
        tools=model is not None and "tools" in model.supports,
        vision=model is not None and ("vision" in model.supports or "image" in model.input_modalities),
    )


def _by_vendor(models: Mapping[str, snapshot.Model]) -> tuple[VendorGroup, ...]:
    groups: dict[snapshot.Vendor, list[ModelRow]] = {}
    for model in models.values():
        row = ModelRow(model.id, compact(model.context), compact(model.output), bool(model.routes))
        groups.setdefault(model.vendor, []).append(row)
    return tuple(
        # The number keeps two vendors apart whose names slugify alike.
        VendorGroup(f"vendor-{number}-{slugify(vendor.slug)}".rstrip("-"), vendor.name, tuple(rows))
        for number, (vendor, rows) in enumerate(groups.items(), 1)
    )


@lru_cache(maxsize=1)
def listing(version: int) -> Listing:
    """Read the catalog once per version. Only names and figures are kept: the snapshot holds credentials."""
    catalog = snapshot.load()
    example = example_model(catalog)
    return Listing(
        vendors=_by_vendor(catalog.models),
        aliases=tuple(sorted(catalog.aliases.items())),
        example=_example(example),
        default_model=catalog.default_model,
        model_count=len(catalog.models),
        live_count=sum(bool(model.routes) for model in catalog.models.values()),
        announcements=catalog.announcements,
    )


def _until(announcement: snapshot.Announcement) -> datetime | None:
    return None if announcement.ends is None else datetime.fromtimestamp(announcement.ends, UTC)


def build(request: HttpRequest) -> Page:
    catalog, now = listing(snapshot.version()), time.time()
    return Page(
        listing=catalog,
        announcements=tuple((each, _until(each)) for each in catalog.announcements if each.in_force(now)),
        base_url=base_url(request),
        service=settings.SERVICE_NAME,
        version=settings.VERSION,
        key_help=settings.KEY_HELP,
        contact=settings.CONTACT,
        rps=settings.DEFAULT_RPS,
        rpm=settings.DEFAULT_RPM,
        tpm=settings.DEFAULT_TPM,
        concurrency=settings.DEFAULT_CONCURRENCY,
        body_limit=size(settings.MAX_BODY_BYTES),
        body_timeout=f"{settings.BODY_TIMEOUT:g}",
        keepalive=f"{settings.KEEPALIVE_SECONDS:g}",
        held=lifetime(settings.RESPONSES_TTL),
        no_auth=settings.ALLOW_NO_AUTH,
    )


@lru_cache(maxsize=16)
def render(page: Page, language: str) -> bytes:
    """`language` is the active one, which the template's translations follow."""
    context = {"page": page, "catalog": page.listing, "announcements": page.announcements}
    return render_to_string("models_catalog/docs.html", context).encode()


@gzip_page
@conditional_page
@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """Browsers ask again each time and get 304 while nothing has changed: a new model is there at once."""
    response = HttpResponse(render(build(request), get_language() or settings.LANGUAGE_CODE))
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response["Cache-Control"] = "no-cache"
    return response
