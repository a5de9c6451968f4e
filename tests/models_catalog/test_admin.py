"""The console's pages for the catalog, through Django's test client, with a provider on a socket of its own."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from models_catalog import snapshot
from models_catalog.models import Alias, Announcement, Catalog, Credential, Model, Price, Provider, Route, Vendor
from proxy.models import RouteTrouble
from tests.upstreams import RefusingUpstream, Upstream, error_reply, json_reply

PROVIDERS, MODELS = "/admin/models_catalog/provider/", "/admin/models_catalog/model/"
SECRET = "sk-not-to-be-shown"
TIMEOUTS = {"connect_timeout": 5, "first_byte_timeout": 60, "idle_timeout": 60, "total_timeout": 600}
PROVIDER = {
    "slug": "local",
    "dialect": "openai",
    "base_url": "http://127.0.0.1:1/v1",
    "is_active": "on",
    "api_key": "",
    "groups": "",
    "supports": "chat",
    "headers": "",
    "max_concurrency": 0,
    "credentials-TOTAL_FORMS": 0,
    "credentials-INITIAL_FORMS": 0,
    **TIMEOUTS,
}
NO_LIMITS = {"rps": 0, "rpm": 0, "tpm": 0, "concurrency": 0}
NO_ROWS = {f"{name}-{part}_FORMS": 0 for name in ("routes", "prices") for part in ("TOTAL", "INITIAL")}
MODEL = {
    "slug": "m",
    "is_active": "on",
    "limits": "pass",
    "strategy": "fastest",
    "attempts": 3,
    "position": 0,
    "input_modalities": "text",
    "output_modalities": "text",
    "supports": "",
    "fallbacks": "",
    **NO_LIMITS,
    **NO_ROWS,
}


@pytest.fixture
def admin_client(db, client) -> Client:
    """An operator, without a password: hashing one takes longer than most tests here."""
    client.force_login(get_user_model().objects.create_superuser("admin"))
    return client


@pytest.fixture
def vendor(db) -> Vendor:
    return Vendor.objects.create(slug="v", name="A vendor")


@pytest.fixture
def provider(db) -> Provider:
    return Provider.objects.create(slug="local", base_url="http://127.0.0.1:1/v1", api_key=SECRET)


@pytest.fixture
def model(vendor, provider) -> Model:
    model = Model.objects.create(slug="m", vendor=vendor, context=128000, output=4096)
    Route.objects.create(model=model, provider=provider, upstream_model="m-there")
    return model


def text_of(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


def save(client: Client, provider: Provider, **fields: object):
    """Send the provider's form, and read the row anew."""
    answer = client.post(f"{PROVIDERS}{provider.pk}/change/", {**PROVIDER, **fields})
    return answer, Provider.objects.get(pk=provider.pk)


# --- providers -------------------------------------------------------------------------------------------------------


def test_it_works(admin_client):
    headers = "X-Team: blue\r\nAuthorization: Basic abc"
    answer = admin_client.post(
        f"{PROVIDERS}add/", {**PROVIDER, "api_key": SECRET, "groups": "a, b", "headers": headers}
    )
    assert answer.status_code == 302
    row = Provider.objects.get()
    assert (row.api_key, row.groups, row.supports) == (SECRET, ["a", "b"], ["chat"])
    assert row.headers == {"X-Team": "blue", "Authorization": "Basic abc"}
    assert snapshot.why_unusable(row) == ""


def test_a_credential_is_never_sent_back(admin_client, provider):
    Provider.objects.update(headers={"Authorization": "Bearer qwertz", "X-Team": "blue"})
    for url in (PROVIDERS, f"{PROVIDERS}{provider.pk}/change/", f"{PROVIDERS}{provider.pk}/history/"):
        page = text_of(admin_client, url)
        assert SECRET not in page
        assert "qwertz" not in page
    page = text_of(admin_client, f"{PROVIDERS}{provider.pk}/change/")
    assert "Authorization: (stored)\nX-Team: blue" in page
    assert "One is stored: leave empty to keep." in page


def test_nor_one_just_typed_into_a_form_with_a_fault(admin_client, provider):
    answer, row = save(admin_client, provider, api_key="sk-typed", base_url="")
    assert answer.status_code == 200
    assert "sk-typed" not in answer.content.decode()
    assert row.api_key == SECRET


def test_no_log_entry_holds_a_credential(admin_client, provider):
    save(admin_client, provider, api_key="sk-typed")
    assert "sk-typed" not in str(list(LogEntry.objects.values()))


def test_an_empty_credential_keeps_what_is_stored(admin_client, provider):
    _, row = save(admin_client, provider, max_concurrency=3)
    assert (row.api_key, row.max_concurrency) == (SECRET, 3)


def test_a_typed_credential_replaces_it(admin_client, provider):
    assert save(admin_client, provider, api_key="sk-other")[1].api_key == "sk-other"


def test_the_stored_credential_is_forgotten_on_request(admin_client, provider):
    assert save(admin_client, provider, clear_api_key="on")[1].api_key == ""


def test_forget_and_replace_at_once_is_refused(admin_client, provider):
    answer, row = save(admin_client, provider, clear_api_key="on", api_key="sk-other")
    assert "not both" in answer.content.decode()
    assert row.api_key == SECRET


def test_a_credential_that_cannot_be_decrypted_stays_as_it_is(admin_client, provider, settings):
    kept = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another"]
    page = text_of(admin_client, f"{PROVIDERS}{provider.pk}/change/")
    assert "cannot be decrypted" in page
    assert save(admin_client, provider, max_concurrency=3)[0].status_code == 302
    settings.ENCRYPTION_KEYS = kept
    row = Provider.objects.get()
    assert (row.api_key, row.max_concurrency) == (SECRET, 3)


def test_the_name_of_a_variable_is_no_secret(admin_client, provider):
    save(admin_client, provider, api_key="env:NOT_SET_HERE")
    page = text_of(admin_client, f"{PROVIDERS}{provider.pk}/change/")
    assert "Now env:NOT_SET_HERE: leave empty to keep." in page
    assert "NOT_SET_HERE is not set in the environment" in page


def test_saving_leaves_alone_what_other_processes_write(admin_client, provider):
    Provider.objects.update(reachable=False)
    assert not save(admin_client, provider, max_concurrency=3)[1].reachable


def test_a_stored_header_is_kept(admin_client, provider):
    Provider.objects.update(headers={"Authorization": "Bearer qwertz", "X-Old": "1"})
    _, row = save(admin_client, provider, headers="authorization: (stored)\nX-New: 2")
    assert row.headers == {"authorization": "Bearer qwertz", "X-New": "2"}


def test_the_list_says_why_a_provider_is_not_live(admin_client, provider):
    Provider.objects.create(slug="p2", base_url="http://127.0.0.1:1", api_key="env:NOT_SET_HERE")
    Provider.objects.create(slug="p3", base_url="http://127.0.0.1:1", is_active=False)
    page = text_of(admin_client, PROVIDERS)
    assert ">live</span>" in page
    assert "NOT_SET_HERE is not set in the environment" in page
    assert ">off</span>" in page


@pytest.mark.parametrize(("to", "active"), [("0", False), ("1", True)])
def test_one_click_switches_a_provider(admin_client, provider, to, active):
    before = snapshot.version()
    answer = admin_client.post(f"{PROVIDERS}{provider.pk}/switch/", {"to": to, "filters": "dialect__exact=openai"})
    assert answer.url == f"{PROVIDERS}?dialect__exact=openai"
    assert Provider.objects.get().is_active is active
    assert snapshot.version() > before


def test_one_click_switches_a_model(admin_client, model):
    answer = admin_client.post(f"{MODELS}{model.pk}/switch/", {"to": "0", "from": "page"})
    assert answer.url == f"{MODELS}{model.pk}/change/"
    assert not Model.objects.get().is_active


# --- several credentials ---------------------------------------------------------------------------------------------


@pytest.fixture
def second(provider) -> Credential:
    return provider.credentials.create(name="second", api_key="sk-second-secret", weight=3)


def inline(*items: dict[str, object]) -> dict[str, object]:
    """What the browser sends for these rows; one with an `id` is stored already."""
    fields = {f"credentials-{n}-{name}": value for n, item in enumerate(items) for name, value in item.items()}
    known = sum("id" in item for item in items)
    return {**fields, "credentials-TOTAL_FORMS": len(items), "credentials-INITIAL_FORMS": known}


def entry(row: Credential | None = None, **fields: object) -> dict[str, object]:
    stored = {"id": row.pk, "provider": row.provider_id, "name": row.name, "weight": row.weight} if row else {}
    return {"api_key": "", "is_active": "on", **stored, **fields}


def keys() -> dict[str, str | None]:
    return dict(Credential.objects.values_list("name", "api_key"))


def test_a_provider_with_several_credentials(admin_client):
    rows = inline(entry(name="second", api_key="sk-2", weight=1), entry(name="third", api_key="env:K3", weight=2))
    assert admin_client.post(f"{PROVIDERS}add/", {**PROVIDER, **rows}).status_code == 302
    assert keys() == {"second": "sk-2", "third": "env:K3"}


def test_none_of_them_is_ever_sent_back(admin_client, provider, second):
    second.provider.credentials.create(name="third", api_key="env:NOT_SET_HERE")
    page = text_of(admin_client, f"{PROVIDERS}{provider.pk}/change/")
    assert "sk-second-secret" not in page
    assert 'placeholder="(stored)"' in page
    assert 'placeholder="env:NOT_SET_HERE"' in page
    answer, _ = save(admin_client, provider, slug="", **inline(entry(second, api_key="sk-typed")))
    assert "sk-typed" not in answer.content.decode()
    assert "sk-typed" not in str(list(LogEntry.objects.values()))


def test_an_empty_answer_keeps_it_and_a_typed_one_replaces_it(admin_client, provider, second):
    assert save(admin_client, provider, **inline(entry(second, weight=5)))[0].status_code == 302
    assert Credential.objects.values_list("api_key", "weight").get() == ("sk-second-secret", 5)
    save(admin_client, provider, **inline(entry(second, api_key="sk-other")))
    assert keys() == {"second": "sk-other"}
    save(admin_client, provider, **inline(entry(second, DELETE="on")))
    assert keys() == {}


def test_one_that_cannot_be_decrypted_stays_as_it_is(admin_client, provider, second, settings):
    kept = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another"]
    assert save(admin_client, provider, **inline(entry(second, weight=5)))[0].status_code == 302
    settings.ENCRYPTION_KEYS = kept
    assert Credential.objects.values_list("api_key", "weight").get() == ("sk-second-secret", 5)


@pytest.mark.parametrize(("fields", "words"), [
    ({"name": "third"}, "Enter the key itself, or env:NAME."),
    ({"name": "third", "api_key": "a b"}, "A credential has no spaces"),
    ({"name": "third", "api_key": "sk", "weight": 0}, "greater than or equal to 1"),
    ({"name": "second", "api_key": "sk"}, "correct the duplicate"),
])  # fmt: skip
def test_a_credential_that_is_none(admin_client, provider, second, fields, words):
    answer, _ = save(admin_client, provider, **inline(entry(second), entry(**{"weight": 1, **fields})))
    assert words in answer.content.decode()
    assert keys() == {"second": "sk-second-secret"}


MOVED = {"base_url": "http://evil.example/v1", "api_key": "sk-new"}


@pytest.mark.parametrize("rows", [
    lambda second: inline(entry(second)),
    lambda second: inline(entry(second, is_active="", weight=9)),
    lambda second: inline(),  # left out of the form
    lambda second: inline(entry(name="new", api_key="sk", weight=1)),
    lambda second: inline(entry(second, api_key="sk"), entry(second, name="twice", weight=2)),  # the same one twice
])  # fmt: skip
def test_no_credential_follows_to_another_host(admin_client, provider, second, rows):
    answer, row = save(admin_client, provider, **MOVED, **rows(second))
    assert "The credential second was stored for http://127.0.0.1:1/v1, and the host has" in answer.content.decode()
    assert row.base_url == "http://127.0.0.1:1/v1"
    assert keys() == {"second": "sk-second-secret"}


@pytest.mark.parametrize(("fields", "left"), [
    ({"api_key": "sk-2"}, {"second": "sk-2"}), ({"api_key": "env:K"}, {"second": "env:K"}), ({"DELETE": "on"}, {}),
])  # fmt: skip
def test_entered_again_or_deleted_it_may_move(admin_client, provider, second, fields, left):
    _, row = save(admin_client, provider, **MOVED, **inline(entry(second, **fields)))
    assert row.base_url == "http://evil.example/v1"
    assert keys() == left


def test_a_reference_may_move(admin_client, provider, second):
    Credential.objects.filter(pk=second.pk).delete()
    row = provider.credentials.create(name="third", api_key="env:K")
    assert save(admin_client, provider, **MOVED, **inline(entry(row)))[1].base_url == "http://evil.example/v1"


def test_who_may_change_providers_alone_is_held_to_it_too(client, provider, second):
    """Without rights to credentials of their own, Django would leave their form, and so the check, out."""
    user = get_user_model().objects.create_user("helper", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_provider"))
    client.force_login(user)
    answer, row = save(client, provider, **MOVED, **inline())
    assert "The credential second was stored for" in answer.content.decode()
    assert row.base_url == "http://127.0.0.1:1/v1"


def test_pages_tell_which_credential_cannot_be_used(admin_client, provider, second):
    provider.credentials.create(name="third", api_key="env:NOT_SET_HERE")
    words = "credential third: NOT_SET_HERE is not set in the environment"
    listed, page = text_of(admin_client, PROVIDERS), text_of(admin_client, f"{PROVIDERS}{provider.pk}/change/")
    assert f">live</span> {words}" in listed
    assert f"Switched on, but not with every credential: {words}." in page


def test_test_asks_with_every_credential(admin_client, provider, second, upstream):
    Provider.objects.update(base_url=upstream.base_url)
    upstream.answers(json_reply({"data": [{"id": "a"}]}), error_reply(401, "no such key sk-second-secret"))
    page = admin_client.post(f"{PROVIDERS}{provider.pk}/test/").content.decode()
    assert "Its own credential: it answers and lists 1 model." in page
    assert "Credential second: it did not work: it refuses this credential (401)" in page
    assert "sk-second-secret" not in page
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == [f"Bearer {SECRET}", "Bearer sk-second-secret"]


# --- asking a provider -----------------------------------------------------------------------------------------------


@pytest.fixture
def listing(provider, upstream: Upstream) -> Upstream:
    """The provider lists two models, of which one is new."""
    upstream.answers(json_reply({"object": "list", "data": [{"id": "m-there"}, {"id": "vendor/<new>"}]}))
    Provider.objects.update(base_url=upstream.base_url)
    return upstream


def test_test_lists_the_models(admin_client, model, listing):
    page = admin_client.post(f"{PROVIDERS}{model.routes.get().provider_id}/test/").content.decode()
    assert "lists 2 models, 1 of them not in the catalog" in page
    assert "vendor/&lt;new&gt;" in page
    assert listing.last.headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in page


def test_test_asks_a_provider_that_is_off(admin_client, provider, listing):
    Provider.objects.update(is_active=False, reachable=False)
    assert "lists 2 models" in admin_client.post(f"{PROVIDERS}{provider.pk}/test/").content.decode()
    assert not Provider.objects.get().is_active


def test_test_says_what_is_wrong_in_words(admin_client, provider, upstream):
    Provider.objects.update(base_url=upstream.base_url)
    upstream.answers(error_reply(401, f"no such key {SECRET}"))
    page = admin_client.post(f"{PROVIDERS}{provider.pk}/test/").content.decode()
    assert "it refuses this credential (401)" in page
    assert SECRET not in page


def test_test_of_a_closed_port(admin_client, provider):
    with RefusingUpstream() as nobody:
        Provider.objects.update(base_url=nobody.base_url)
        page = admin_client.post(f"{PROVIDERS}{provider.pk}/test/").content.decode()
    assert "the connection was refused" in page


def test_test_of_a_provider_without_its_variable(admin_client, provider):
    Provider.objects.filter(pk=provider.pk).update(api_key="env:NOT_SET_HERE")
    page = admin_client.post(f"{PROVIDERS}{provider.pk}/test/").content.decode()
    assert "NOT_SET_HERE is not set in the environment" in page


def test_add_models_marks_those_that_are_there(admin_client, model, listing):
    page = admin_client.post(f"{PROVIDERS}{model.routes.get().provider_id}/models/").content.decode()
    assert 'value="m-there" checked disabled' in page
    assert 'value="vendor/&lt;new&gt;">' in page


def test_add_models_adds_the_chosen(admin_client, provider, listing):
    answer = admin_client.post(f"{PROVIDERS}{provider.pk}/models/", {"add": "1", "names": ["vendor/<new>"]})
    assert answer.url == MODELS
    assert Route.objects.get().upstream_model == "vendor/<new>"
    assert Route.objects.get().provider == provider
    assert not listing.requests


@pytest.mark.parametrize("names", [[], ["with space"], ["x" * 201]])
def test_add_models_refuses_what_is_no_model_id(admin_client, provider, listing, names):
    answer = admin_client.post(f"{PROVIDERS}{provider.pk}/models/", {"add": "1", "names": names})
    assert answer.status_code == 200
    assert 'class="kd-fault" role="alert"' in answer.content.decode()
    assert not Model.objects.exists()


@pytest.mark.parametrize("view", ["test", "models", "switch"])
def test_a_link_alone_does_nothing(admin_client, provider, listing, view):
    assert admin_client.get(f"{PROVIDERS}{provider.pk}/{view}/").status_code == 405
    assert not listing.requests


@pytest.mark.parametrize("view", ["test", "models", "switch"])
def test_an_onlooker_does_nothing(client, provider, listing, view):
    user = get_user_model().objects.create_user("onlooker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_provider"))
    client.force_login(user)
    assert f"/{view}/" not in text_of(client, PROVIDERS) + text_of(client, f"{PROVIDERS}{provider.pk}/change/")
    assert client.post(f"{PROVIDERS}{provider.pk}/{view}/", {"to": "0"}).status_code == 403
    assert Provider.objects.get().is_active
    assert not listing.requests


def test_adding_models_needs_the_right_to(client, provider, listing):
    user = get_user_model().objects.create_user("helper", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_provider"))
    client.force_login(user)
    assert client.post(f"{PROVIDERS}{provider.pk}/models/", {"add": "1", "names": ["n"]}).status_code == 403


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_model_with_its_route_and_price(admin_client, vendor, provider):
    route = {"provider": provider.pk, "upstream_model": "m-there", "priority": 2, "weight": 3, "is_active": "on"}
    route |= {"price_input": "0.1", "price_output": "0.4"}
    price = {"valid_from_0": "2026-01-01", "valid_from_1": "00:00", "input": "0.15", "output": "0.6"}
    rows = {f"routes-0-{name}": value for name, value in route.items()}
    rows |= {f"prices-0-{name}": value for name, value in price.items()}
    form = {**MODEL, "vendor": vendor.pk, "supports": "tools, vision", **rows, "routes-TOTAL_FORMS": 1}
    answer = admin_client.post(f"{MODELS}add/", {**form, "prices-TOTAL_FORMS": 1})
    assert answer.status_code == 302, answer.context["errors"]
    model = Model.objects.get()
    assert model.supports == ["tools", "vision"]
    assert (model.routes.get().provider, model.routes.get().priority) == (provider, 2)
    assert (model.routes.get().price_input, model.routes.get().price_output) == (Decimal("0.1"), Decimal("0.4"))
    assert (model.strategy, model.attempts) == ("fastest", 3)
    assert model.prices.get().input == Decimal("0.15")


def test_the_list_of_models(admin_client, model):
    Price.objects.create(model=model, input=Decimal("0.15"), output=Decimal("0.6"))
    Alias.objects.create(slug="fast", model=model)
    page = text_of(admin_client, f"{MODELS}?q=fast")
    for words in ("128K", "4K", "0.15 / 0.6", "1 live", "A vendor"):
        assert words in page


@pytest.mark.parametrize("spoil", [
    lambda: Provider.objects.update(is_active=False),
    lambda: Provider.objects.update(base_url="http://${NOT_SET_HERE}"),
    lambda: Route.objects.update(is_active=False),
    lambda: Route.objects.all().delete(),
])  # fmt: skip
def test_the_list_marks_models_without_a_live_route(admin_client, model, spoil):
    assert "no live route" not in text_of(admin_client, MODELS)
    spoil()
    assert "no live route" in text_of(admin_client, f"{MODELS}?live=no")
    assert f"{MODELS}{model.pk}/change/" not in text_of(admin_client, f"{MODELS}?live=yes")


def test_the_page_of_a_dead_model_says_why(admin_client, model, provider):
    url = f"{MODELS}{model.pk}/change/"
    assert "no live route" not in text_of(admin_client, url)
    provider.api_key = "env:NOT_SET_HERE"
    provider.save()
    page = text_of(admin_client, url)
    assert "This model has no live route: requests for it fail." in page
    assert "<li>local: NOT_SET_HERE is not set in the environment</li>" in page


# --- aliases, vendors, settings --------------------------------------------------------------------------------------


def test_the_limits_of_a_model(admin_client, vendor):
    limits = {"rps": 1, "rpm": 2, "tpm": 3, "concurrency": 4}
    admin_client.post(f"{MODELS}add/", {**MODEL, "vendor": vendor.pk, **limits})
    assert Model.objects.values(*limits).get() == limits


PAST, FUTURE = timezone.now() - timedelta(days=1), timezone.now() + timedelta(days=1)


@pytest.mark.parametrize(("prices", "priced"), [
    ([], False),
    ([(PAST, 0, 0)], True),
    ([(PAST, 1, None)], False),
    ([(FUTURE, 1, 1)], False),
    ([(PAST - timedelta(days=1), 1, 1), (PAST, None, 1)], False),
    ([(PAST, 1, 1), (FUTURE, None, None)], True),
])  # fmt: skip
def test_what_has_no_price_is_a_to_do(admin_client, model, prices, priced):
    model.prices.all().delete()
    for since, dear, cheap in prices:
        Price.objects.create(model=model, valid_from=since, input=dear, output=cheap)
    assert ("refused with a 402" in text_of(admin_client, MODELS)) is not priced
    assert ("This model has no price" in text_of(admin_client, f"{MODELS}{model.pk}/change/")) is not priced
    found = {
        answer: f"{MODELS}{model.pk}/change/" in text_of(admin_client, f"{MODELS}?price={answer}")
        for answer in ("yes", "no")
    }
    assert found == {"yes": priced, "no": not priced}


def test_the_to_do_names_live_models_only_and_not_too_many(admin_client, model):
    model.prices.all().delete()
    Model.objects.create(slug="dead", vendor=model.vendor)
    assert "<li>dead</li>" not in text_of(admin_client, MODELS)
    for number in range(11):
        other = Model.objects.create(slug=f"m{number:02}", vendor=model.vendor)
        Route.objects.create(model=other, provider=model.routes.get().provider, upstream_model="m")
    page = text_of(admin_client, MODELS)
    assert "<li>m08</li><li>and 2 more</li>" in page


def test_an_alias(admin_client, model):
    url = "/admin/models_catalog/alias/"
    assert admin_client.post(f"{url}add/", {"slug": "fast", "model": model.pk}).status_code == 302
    assert "fast" in text_of(admin_client, url)
    assert "A model has this ID" in admin_client.post(f"{url}add/", {"slug": "m", "model": model.pk}).content.decode()


def test_vendors(admin_client, model):
    assert f'?vendor__id__exact={model.vendor_id}" class="text-link">1</a>' in text_of(
        admin_client, "/admin/models_catalog/vendor/"
    )


def test_the_settings_are_one_page(admin_client, model):
    listing = admin_client.get("/admin/models_catalog/catalog/")
    assert listing.url == "/admin/models_catalog/catalog/1/change/"
    before = snapshot.version()
    assert admin_client.post(listing.url, {"default_model": "m"}).status_code == 302
    assert snapshot.load().default_model == "m"
    assert snapshot.version() == before + 1
    assert admin_client.get("/admin/models_catalog/catalog/add/").status_code == 403
    assert admin_client.get("/admin/models_catalog/catalog/1/delete/").status_code == 403


@pytest.mark.parametrize("name", ["nothing", "gone"])
def test_a_default_model_that_is_not_there_is_refused(admin_client, model, name):
    Catalog.objects.update_or_create(pk=1, defaults={"default_model": "gone"})
    answer = admin_client.post("/admin/models_catalog/catalog/1/change/", {"default_model": name})
    assert answer.status_code == 200
    assert "gone (no longer in the catalog)" in answer.content.decode()
    assert Catalog.objects.get().default_model == "gone"


@pytest.mark.parametrize("name", ["", "fast"])
def test_the_default_model_may_be_none_or_an_alias(admin_client, model, name):
    Alias.objects.create(slug="fast", model=model)
    answer = admin_client.post("/admin/models_catalog/catalog/1/change/", {"default_model": name})
    assert answer.status_code == 302
    assert Catalog.objects.get().default_model == name


def test_the_default_model_may_be_a_named_alias(admin_client, model):
    page = text_of(admin_client, "/admin/models_catalog/catalog/1/change/")
    assert "balanced (chosen from the catalog)" in page
    answer = admin_client.post("/admin/models_catalog/catalog/1/change/", {"default_model": "balanced"})
    assert answer.status_code == 302
    assert snapshot.load().default_model == "balanced"


def test_the_list_of_aliases_says_what_the_named_ones_stand_for(admin_client, model):
    Alias.objects.create(slug="fast", model=model)
    page = text_of(admin_client, "/admin/models_catalog/alias/")
    assert "<dt>best</dt><dd>m</dd>" in page
    assert "<dt>fast</dt>" not in page


# --- announcements ---------------------------------------------------------------------------------------------------

ANNOUNCEMENTS = "/admin/models_catalog/announcement/"


def test_an_announcement(admin_client):
    form = {"kind": "incident", "title": "Slow answers", "text": "We look into it.", "is_active": "on"}
    times = {"begins_at_0": "2026-01-01", "begins_at_1": "00:00", "ends_at_0": "", "ends_at_1": ""}
    assert admin_client.post(f"{ANNOUNCEMENTS}add/", {**form, **times}).status_code == 302
    assert [(each.kind, each.title) for each in snapshot.load().announcements] == [("incident", "Slow answers")]
    pk = Announcement.objects.get().pk
    admin_client.post(f"{ANNOUNCEMENTS}{pk}/switch/", {"to": "0"})
    assert snapshot.load().announcements == ()


@pytest.mark.parametrize(("begins", "ends", "active", "state"), [
    (-1, None, True, "shown"), (1, None, True, "later"), (-2, -1, True, "over"), (-1, 1, False, "off"),
])  # fmt: skip
def test_the_list_says_whether_it_is_shown(admin_client, begins, ends, active, state):
    now = timezone.now()
    Announcement.objects.create(
        title="t",
        begins_at=now + timedelta(hours=begins),
        ends_at=now + timedelta(hours=ends) if ends else None,
        is_active=active,
    )
    page = text_of(admin_client, ANNOUNCEMENTS)
    assert f">{state}</span>" in " ".join(page.split()).replace("> ", ">").replace(" <", "<")


# --- what the gateway has met there ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("why", "words"), [("refused", "refuses a credential"), ("errors", "fails")])
def test_a_provider_in_trouble_is_not_called_live(admin_client: Client, why: str, words: str) -> None:
    Provider.objects.create(slug="ill", base_url="http://127.0.0.1:9/v1")
    Provider.objects.create(slug="well", base_url="http://127.0.0.1:9/v1")
    now = timezone.now()
    RouteTrouble.objects.create(name="1.0.x", provider="ill", why=why, since=now, until=now, seen_at=now)
    page = admin_client.get("/admin/models_catalog/provider/").content.decode()
    ill, well = page.split(">ill<")[1].split("</tr>")[0], page.split(">well<")[1].split("</tr>")[0]
    assert words in ill
    assert "live" not in ill
    assert "live" in well
