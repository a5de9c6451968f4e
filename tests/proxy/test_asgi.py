"""The table of endpoints: what is at a path, and what is said where there is nothing. On real sockets: tests/kodna."""

from pathlib import Path

import pytest
from pytest_django import Settings

from proxy.asgi import serves
from proxy.upstream import Pool
from tests.proxy.inside import CHAT, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream


@pytest.fixture
def house(tmp_path: Path) -> Inside:
    return Inside(tmp_path, snapshot(model("m", provider())), Pool(MockUpstream().transport))


async def test_it_works(house: Inside) -> None:
    assert (await house.post()).status == 200
    assert (await house.get("/v1/models")).status == 200


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/healthy", "/demo/v1/models"])
async def test_nothing_there(house: Inside, path: str) -> None:
    answer = await house.get(path)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        404,
        "not_found_error",
        "invalid_request_error",
    )
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_long_path_is_not_said_again(house: Inside) -> None:
    assert len((await house.get("/v1/" + "x" * 10_000)).body) < 500
    assert len((await house.get("/v1/models/" + "x" * 10_000, method="POST")).body) < 500


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", CHAT, "POST, OPTIONS"), ("POST", "/health", "GET, OPTIONS")]
)
async def test_a_wrong_method(house: Inside, method: str, path: str, allowed: str) -> None:
    answer = await house.get(path, method=method)
    assert (answer.status, answer.headers["allow"], answer.error["code"]) == (405, allowed, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/requests/req_1", "/v1/credits/balance", "/v1/auth/me"])
@pytest.mark.django_db
async def test_djangos_paths(house: Inside, path: str) -> None:
    answer = await house.get(path)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert (await house.get(path, method="HEAD")).status == 401
    assert (await house.get(path, method="POST")).headers["allow"] == "GET, OPTIONS"
    assert (await house.get(path, method="OPTIONS")).status == 204


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/requests/", "/v1/requests/a/b", "/v1/usage/", "/v1/auth"])
async def test_not_djangos_paths(house: Inside, path: str) -> None:
    answer = await house.get(path)
    assert (answer.status, answer.error["code"]) == (404, "not_found_error")


async def test_preflight(house: Inside) -> None:
    answer = await house.get(CHAT, [(b"origin", b"https://x.example")], "OPTIONS")
    assert (answer.status, answer.body, answer.headers["access-control-allow-origin"]) == (204, b"", "*")


@pytest.mark.parametrize("path", [CHAT, "/v1/nothing"])
async def test_pages_of_other_origins_can_read_errors(house: Inside, path: str) -> None:
    answer = await house.post(b"{", path, headers=[(b"origin", b"https://x.example")])
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_the_demonstration_is_there_where_it_is_on(tmp_path: Path, settings: Settings) -> None:
    settings.DEMO = True
    settings.PROVIDER_ENV = {"KODNA_DEMO_KEY": "x"}
    house = Inside(tmp_path, snapshot(), Pool(MockUpstream().transport))
    assert (await house.get("/demo/v1/models")).status == 401


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/v1", True),
        ("/v1/x", True),
        ("/health", True),
        ("/v1x", False),
        ("/", False),
        ("/admin/", False),
        ("//v1/", False),
    ],
)
def test_whose_path_it_is(path: str, ours: bool) -> None:
    assert serves({"path": path}) is ours


# --- paths that hold a name ------------------------------------------------------------------------------------------

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


@pytest.mark.parametrize("version", ["/v1beta", "/v1"])
@pytest.mark.parametrize("name", ["m", "vendor/m", "vendor/m:free"])
async def test_a_model_in_the_path(tmp_path: Path, version: str, name: str) -> None:
    house = Inside(tmp_path, snapshot(model(name, provider())), Pool(MockUpstream().transport))
    answer = await house.post(HELLO, f"{version}/models/{name}:generateContent")
    assert (answer.status, answer.json["modelVersion"]) == (200, name)
    assert (await house.get(f"/v1/models/{name}")).json["id"] == name


async def test_the_wrong_method_for_a_model(house: Inside) -> None:
    answer = await house.get("/v1beta/models/m:generateContent")
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert answer.error["code"] == 405, "in Gemini's words"


@pytest.mark.parametrize("path", ["/v1beta", "/v1beta/x", "/v1beta/models/", "/v1beta/models/m", "/v1beta/models/m:x"])
async def test_nothing_there_for_geminis_clients(house: Inside, path: str) -> None:
    answer = await house.post({}, path)
    assert (answer.status, answer.error["status"]) == (404, "NOT_FOUND")


async def test_a_held_response(house: Inside) -> None:
    assert (await house.get("/v1/responses/resp_x")).status == 401
    assert (await house.get("/v1/responses/resp_x", method="PUT")).headers["allow"] == "GET, DELETE, OPTIONS"
    assert (await house.get("/v1/responses/resp_x/nothing")).status == 404
