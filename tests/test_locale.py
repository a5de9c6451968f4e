"""The Russian pages: nothing of them is left in English, and what is compiled is what is written."""

import ast
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.utils import translation
from django.utils.translation import trans_real

from models_catalog import pages
from models_catalog.models import Announcement, Model, Provider, Route, Vendor
from proxy import status_pages, uptime
from proxy.models import UptimeHour
from tests.processes import ROOT

PO = ROOT / "locale" / "ru" / "LC_MESSAGES" / "django.po"
KEPT = re.compile(r"%\(\w+\)s|%d|%%|<[^>]+>|<code>.*?</code>")  # in each language alike
_STRING = re.compile(r'^(msgid|msgid_plural|msgstr(?:\[(\d)\])?) (".*")$', re.MULTILINE)


def written(path: Path) -> dict[tuple[str, int] | str, str]:
    """As `gettext` keeps it: of plurals, each form by its number."""
    found: dict[tuple[str, int] | str, str] = {}
    name = ""
    for kind, form, text in _STRING.findall(path.read_text(encoding="utf-8")):
        words = ast.literal_eval(text)
        if kind == "msgid":
            name = words
        elif kind != "msgid_plural" and name:
            found[(name, int(form)) if form else name] = words
    return found


@pytest.fixture
def translations() -> dict[tuple[str, int] | str, str]:
    return written(PO)


def test_what_is_compiled_is_what_is_written(translations: dict[tuple[str, int] | str, str]) -> None:
    with PO.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    assert len(translations) > 200
    assert {name: words for name, words in compiled.items() if name} == translations


def test_nothing_is_lost_on_the_way(translations: dict[tuple[str, int] | str, str]) -> None:
    for name, words in translations.items():
        assert words, name
        if isinstance(name, str):
            assert sorted(KEPT.findall(name)) == sorted(KEPT.findall(words)), name


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What was asked for in Russian, and is not there."""
    found: set[str] = set()
    catalog = trans_real.translation("ru")._catalog  # type: ignore[attr-defined]
    plain, plural = trans_real.gettext, trans_real.ngettext

    def look(message: str) -> str:
        if message and catalog.get(message, None) is None:
            found.add(message)
        return plain(message)

    def count(one: str, many: str, number: int) -> str:
        if catalog.get((one, 0), None) is None:
            found.add(one)
        return plural(one, many, number)

    monkeypatch.setattr(translation._trans, "gettext", look)
    monkeypatch.setattr(translation._trans, "ngettext", count)
    return found


@pytest.fixture
def full(db: None) -> Iterator[None]:
    """A catalog with which each part of the pages is there."""
    pages.listing.cache_clear()
    for cache in (pages.render, status_pages.render):
        cache.cache_clear()
    uptime.latest.forget()
    vendor = Vendor.objects.create(slug="v", name="V")
    provider = Provider.objects.create(slug="p", base_url="http://127.0.0.1:1/v1")
    for slug, is_live in (("live", True), ("offline", False)):
        model = Model.objects.create(slug=slug, vendor=vendor)
        if is_live:
            Route.objects.create(model=model, provider=provider, upstream_model="x")
    Announcement.objects.create(title="Maintenance", ends_at="2099-01-01T00:00:00Z")
    UptimeHour.objects.create(start=uptime.timezone.now(), model="live", good=5, bad=5)
    yield
    pages.listing.cache_clear()
    for cache in (pages.render, status_pages.render):
        cache.cache_clear()
    uptime.latest.forget()


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(("path", "words"), [("/", "Быстрый старт"), ("/status", "У некоторых моделей неполадки")])
def test_the_pages_are_russian_where_the_browser_is(client: Client, missing: set[str], path: str, words: str) -> None:
    page = client.get(path, headers={"accept-language": "ru-RU,ru;q=0.9,en;q=0.5"})
    assert words in page.content.decode()
    assert '<html lang="ru">' in page.content.decode()
    assert page["Content-Language"] == "ru"
    assert missing == set()
    english = client.get(path, headers={"accept-language": "en"}).content.decode()
    assert '<html lang="en">' in english
    assert not re.search("[а-яё]", english)
