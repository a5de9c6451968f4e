"""Ask a provider which models it has, and keep the catalog in step with those that are asked by themselves (Ollama).

The admin's buttons, the periodic job (`tasks.discover_models`) and the process's own scheduler are the callers: the
control plane, so urllib is enough, and slow is fine. Environment proxies are not used and redirects not followed: the
credential goes to the base URL and nowhere else.
"""

import json
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from copy import copy
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import NamedTuple
from urllib import error, request
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max

from models_catalog import catalog_file, snapshot
from models_catalog import models as rows
from models_catalog.snapshot import Unusable

SECONDS = 10.0  # for the connection and for each read
DEADLINE = 30.0
MAX_BYTES = 5 * 1024 * 1024
LOCAL = ("local", "Local models")
# Where a dialect lists its models, behind the base URL as its SDK takes it; each on one page.
_LISTS = {"anthropic": "/v1/models?limit=1000", "gemini": "/v1beta/models?pageSize=1000"}
_LOOPBACK = re.compile(r"://(?:127\.|localhost\b|\[::1\])")
_STATUS = {
    404: "it has no list of models there (404): is the base URL as its SDK takes it, OpenAI's with /v1?",
    405: "it has no list of models there (405): is the base URL as its SDK takes it, OpenAI's with /v1?",
    407: "a proxy in between asks for credentials (407)",
    429: "it answers, but refuses for now: too many requests (429)",
}


class ProbeError(Exception):
    """Why a provider did not tell its models, in words for an operator; never with the credential.

    `status`: what it answered with, be it no list of models; 0 where no whole HTTP answer came.
    """

    def __init__(self, words: str, *, status: int = 200) -> None:
        super().__init__(words)
        self.status = status


class _NoRedirects(request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _opener() -> request.OpenerDirector:
    """HTTP and HTTPS only: urllib's own choice also reads files."""
    opener = request.OpenerDirector()
    for handler in (
        request.UnknownHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        _NoRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def list_models(provider: snapshot.Provider) -> list[str]:
    """The IDs that the provider lists, in its order. Raises `ProbeError`."""
    if not _is_address(provider.base_url):
        raise ProbeError("the base URL is not an address of http:// or https://", status=0)
    try:
        body = _get(provider)
    except error.HTTPError as refusal:
        refusal.close()
        raise ProbeError(_status(refusal.code), status=refusal.code) from None
    except (OSError, HTTPException, ValueError) as failure:
        # ValueError: urllib quotes a header that it cannot send, and that may be the credential.
        raise ProbeError(_reason(failure), status=0) from None
    try:
        answer = json.loads(body)
        return _ids(_as_openai(answer) if provider.dialect == "gemini" else answer)
    except (ValueError, RecursionError):
        raise ProbeError("it answers /models with something that is not JSON: is this the API's base URL?") from None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _get(provider: snapshot.Provider) -> bytes:
    headers = {"accept": "application/json", "user-agent": "kodna", **provider.credential_headers()}
    path = _LISTS.get(provider.dialect, "/models")
    ask = request.Request(provider.base_url + path, headers={**headers, **dict(provider.headers)})  # noqa: S310
    ends = time.monotonic() + DEADLINE
    with _opener().open(ask, timeout=SECONDS) as answer:
        return _read(answer, ends)


def _read(answer: HTTPResponse, ends: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise ProbeError(f"its answer to /models is larger than {MAX_BYTES // 1024 // 1024} MB")
        if time.monotonic() > ends:
            raise ProbeError(f"it did not finish its answer to /models within {DEADLINE:g} seconds", status=0)
    return b"".join(parts)


def _status(code: int) -> str:
    if code in {401, 403}:
        return f"it refuses this credential ({code})"
    if code in _STATUS:
        return _STATUS[code]
    if 300 <= code < 400:
        return f"it redirects to another address ({code}), which is not followed: put the final one into the base URL"
    return f"it answers, but with an error of its own ({code})" if code >= 500 else f"it refuses /models ({code})"


def _reason(failure: Exception) -> str:
    cause = failure.reason if isinstance(failure, error.URLError) else failure
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens at this address: the connection was refused"
    if isinstance(cause, socket.gaierror):
        return "the host's name is unknown"
    if isinstance(cause, TimeoutError):
        return f"it does not answer within {SECONDS:g} seconds"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return "TLS with it fails: is this address http:// rather than https://?"
    if isinstance(cause, ConnectionResetError | IncompleteRead):  # http.client's RemoteDisconnected is one of these
        return "it closed the connection without a whole answer"
    if isinstance(cause, HTTPException):
        return "what answers there does not speak HTTP: is this address https:// rather than http://?"
    if isinstance(cause, OSError):
        return f"the connection failed: {cause.strerror or type(cause).__name__}"
    return "the base URL, the credential or a header holds characters that cannot be sent"


def _ids(answer: object) -> list[str]:
    """OpenAI's and Anthropic's shape; a bare list (Together) and `"data": null` (Ollama without models) are met too."""
    listed = answer.get("data", answer) if isinstance(answer, dict) else answer
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise ProbeError('its answer to /models is JSON, but not OpenAI\'s list {"data": [{"id": …}]}')
    return list(dict.fromkeys(item["id"] for item in listed if _usable(item.get("id"))))


def _as_openai(answer: object) -> object:
    """Gemini's list: each name begins with `models/`, and there are some that do not generate."""
    listed = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        return answer
    able = [item for item in listed if "generateContent" in item.get("supportedGenerationMethods", ["generateContent"])]
    return {"data": [{"id": str(item.get("name", "")).removeprefix("models/")} for item in able]}


def _usable(name: object) -> bool:
    """Whether a name can be an ID in the catalog."""
    try:
        rows.Model.slug.field.clean(name, None)
    except ValidationError:
        return False
    return isinstance(name, str) and name.isprintable()


# --- into the catalog ------------------------------------------------------------------------------------------------


class Probed(NamedTuple):
    """What a provider said to one of its credentials. `fault`: why it did not tell its models."""

    label: str
    names: list[str]
    fault: ProbeError | Unusable | None


def probe_all(row: rows.Provider) -> Iterator[Probed]:
    """Ask a provider with one of its credentials after the other, be it switched off or thought to be away."""
    asked = copy(row)
    asked.is_active = asked.reachable = True
    return map(_probed, snapshot.freeze_provider(asked))


def _probed(keyed: snapshot.Keyed) -> Probed:
    if keyed.provider is None:
        return Probed(keyed.label, [], Unusable(keyed.fault))
    try:
        return Probed(keyed.label, list_models(keyed.provider), None)
    except ProbeError as fault:
        return Probed(keyed.label, [], fault)


def probe(row: rows.Provider) -> list[str]:
    """The models that a provider lists, by the first credential that it takes. Raises `ProbeError`, `Unusable`."""
    faults: list[ProbeError | Unusable] = []
    for each in probe_all(row):
        if each.fault is None:
            return each.names
        faults.append(each.fault)
    raise next((fault for fault in faults if isinstance(fault, ProbeError)), faults[0])


def add_models(row: rows.Provider, names: Iterable[str], *, discovered: bool = False) -> int:
    """Models and routes for these names where they are missing. Gives how many routes were added."""
    added = 0
    with transaction.atomic():
        routed = set(row.routes.values_list("upstream_model", flat=True))
        for name in names:
            if name in routed or rows.Alias.objects.filter(slug=name).exists():
                continue
            model = rows.Model.objects.filter(slug=name).first() or _add_model(row, name)
            # Behind the routes that are there: what a provider lists must not take a model over.
            last = model.routes.aggregate(last=Max("priority"))["last"]
            priority = 1 if last is None else last + 1
            row.routes.create(model=model, upstream_model=name, priority=priority, discovered=discovered)
            added += 1
    return added


def _add_model(row: rows.Provider, name: str) -> rows.Model:
    slug, title = _vendor(row, name)
    vendor = rows.Vendor.objects.filter(slug=slug).first()
    if vendor is None:
        last = rows.Vendor.objects.aggregate(last=Max("position"))["last"]
        vendor = rows.Vendor.objects.create(slug=slug, name=title, position=0 if last is None else last + 1)
    last = vendor.models.aggregate(last=Max("position"))["last"]
    return rows.Model.objects.create(slug=name, vendor=vendor, position=0 if last is None else last + 1)


def _vendor(row: rows.Provider, name: str) -> tuple[str, str]:
    if row.discovers or _LOOPBACK.search(row.base_url):
        return LOCAL
    first, slash, _ = name.partition("/")
    named = first if slash and first and first != "models" else row.slug  # Gemini's IDs begin with models/
    return named[:100], named[:100]


def sync(row: rows.Provider) -> None:
    """Bring the catalog in step with what the provider lists now. Writes nothing where nothing changed."""
    try:
        names = probe(row)
    except ProbeError:
        _mark(row, reachable=False)
        return
    with transaction.atomic():
        catalog_file.lock()
        add_models(row, names, discovered=True)
        gone = row.routes.filter(discovered=True).exclude(upstream_model__in=names)
        left = [route.model_id for route in gone]
        for route in gone:
            route.delete()
        # What an operator gave a price, an alias or another route stays.
        for model in rows.Model.objects.filter(pk__in=left, routes=None, prices=None, aliases=None):
            model.delete()
        _mark(row, reachable=True)


def _mark(row: rows.Provider, *, reachable: bool) -> None:
    if row.reachable != reachable:
        row.reachable = reachable
        row.save(update_fields=["reachable"])


def discover_all() -> None:
    for row in rows.Provider.objects.filter(is_active=True, discovers=True):
        try:
            sync(row)
        except Unusable:  # its environment variable is not set: the admin says so beside the provider
            continue
