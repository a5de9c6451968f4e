import pytest
from django.core.exceptions import ValidationError

from models_catalog.forms import MASK, AmountField, HeadersField, ModelForm, ProviderForm
from models_catalog.models import Alias, Model, Provider, Vendor


def test_it_works():
    field = HeadersField()
    headers = {"X-Team": "blue", "HTTP-Referer": "https://example.org/?a=b:c"}
    assert field.prepare_value(headers) == "HTTP-Referer: https://example.org/?a=b:c\nX-Team: blue"
    assert field.clean(field.prepare_value(headers)) == headers


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Auth", "Cookie", "X-Amz-Signature", "my-TOKEN"])
def test_headers_that_look_like_secrets_are_masked(name):
    assert HeadersField().prepare_value({name: "hidden"}) == f"{name}: {MASK}"


@pytest.mark.parametrize("text", ["no colon", ": value", "two words: x", "X: \x00", "X: é", "a: 1\nA: 2"])
def test_headers_that_are_none_are_refused(text):
    with pytest.raises(ValidationError):
        HeadersField().clean(text)


@pytest.mark.parametrize(("text", "changed"), [
    (f"Authorization: {MASK}", False), ("Authorization: other", True), ("", True), ("broken", True),
])  # fmt: skip
def test_a_masked_header_is_no_change(text, changed):
    assert HeadersField().has_changed({"Authorization": "hidden"}, text) is changed


def test_amounts_are_shown_short():
    assert AmountField().prepare_value(AmountField().clean("0.150000")) == "0.15"
    assert AmountField().prepare_value(AmountField().clean("100.000000")) == "100"


@pytest.mark.parametrize("url", ["api.example.org/v1", "ftp://example.org", "http://", "http://a b", "file:///x"])
def test_a_base_url_that_is_none_is_refused(url):
    assert "base_url" in ProviderForm({"base_url": url}).errors


@pytest.mark.parametrize("url", ["https://api.example.org/v1", "${OLLAMA_BASE_URL:-http://127.0.0.1:11434}/v1"])
def test_base_urls_pass(url):
    assert "base_url" not in ProviderForm({"base_url": url}).errors


@pytest.mark.parametrize("text", ["two words", "Schlüssel", "env:", "env:NOT A NAME", "env:1"])
def test_a_credential_that_is_none_is_refused(text):
    assert "api_key" in ProviderForm({"api_key": text}).errors


def test_a_mask_without_a_stored_value_is_refused():
    form = ProviderForm({"headers": f"Authorization: {MASK}"}, instance=Provider())
    assert "No value of Authorization is stored" in str(form.errors["headers"])


def moved(base_url: str, stored: str = "sk-stored", **typed: str) -> ProviderForm:
    """The form of a provider at https://api.example.org/v1, sent with another base URL."""
    url, headers = "https://api.example.org/v1", {"X-Auth": "hidden"}
    row = Provider(slug="p", base_url=url, api_key=stored, headers=headers)
    return ProviderForm({"base_url": base_url, **typed}, instance=row)


@pytest.mark.parametrize("url", [
    "https://evil.example/v1", "http://api.example.org/v1", "https://api.example.org:8443/v1",
    "https://api.example.org.evil.example/v1", "https://api.example.org\\evil.example/v1", "${ELSEWHERE}/v1",
])  # fmt: skip
def test_a_stored_credential_does_not_follow_to_another_host(url):
    assert "enter it again" in str(moved(url).errors["api_key"])


def test_nor_does_a_header_that_is_not_shown():
    form = moved("https://evil.example/v1", "", headers=f"X-Auth: {MASK}")
    assert "The value of X-Auth was stored for https://api.example.org/v1" in str(form.errors["headers"])


@pytest.mark.parametrize(("url", "stored", "typed"), [
    ("https://api.example.org/v2", "sk-stored", {}),  # the same host
    ("https://API.example.org/v1", "sk-stored", {}),
    ("https://evil.example/v1", "sk-stored", {"api_key": "sk-typed"}),
    ("https://evil.example/v1", "sk-stored", {"clear_api_key": "on"}),
    ("https://evil.example/v1", "env:OPENAI_API_KEY", {}),
    ("https://evil.example/v1", "", {}),
])  # fmt: skip
def test_a_provider_moves_with_its_credential_entered_again_or_none(url, stored, typed):
    assert not {"api_key", "headers"} & set(moved(url, stored, **typed).errors)


@pytest.fixture
def model(db) -> Model:
    return Model.objects.create(slug="m", vendor=Vendor.objects.create(slug="v", name="V"))


@pytest.mark.parametrize(("field", "value", "words"), [
    ("slug", "fast", "An alias has this name"),
    ("fallbacks", "m, nothing", "No such model: nothing."),
    ("fallbacks", "m", "cannot be its own fallback"),
])  # fmt: skip
def test_a_model_that_would_not_work_is_refused(model, field, value, words):
    Alias.objects.create(slug="fast", model=model)
    form = ModelForm({"slug": "m", field: value}, instance=model)
    assert words in str(form.errors[field])
