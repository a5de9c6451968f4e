"""`door`: where an SDK knocks. Once at the scripted provider of its own dialect, which proves provider and test; then
at a gateway in front of each of the four."""

from collections.abc import Generator, Iterator
from pathlib import Path

import certifi
import pytest

from tests.conftest import GATEWAYS, MakeGateway
from tests.gateway import Gateway
from tests.providers import DIALECTS, KEY, Providers
from tests.sdk.any_provider.door import Door, providers_catalog

DIRECT = "direct"


@pytest.fixture(scope="session")
def providers() -> Iterator[Providers]:
    with Providers() as server:
        yield server


@pytest.fixture(scope="session")
def _translating(_new_gateway: MakeGateway, providers: Providers) -> Iterator[tuple[Gateway, str]]:
    gateway = _new_gateway("sqlite")
    key = gateway.set_up(providers_catalog(providers), name="shared")
    with gateway:
        yield gateway, key


@pytest.fixture(scope="session")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    first, end, _ = certifi.contents().partition("-----END CERTIFICATE-----\n")
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(first + end)
    return path


@pytest.fixture(autouse=True)
def _few_certificates(_certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new client reads the certificates of the whole world, which takes 50 ms; nothing here goes by TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", str(_certificate))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "door" in metafunc.fixturenames:
        direct = [] if hasattr(metafunc.function, "only_through_the_gateway") else [DIRECT]
        metafunc.parametrize("door", [*direct, *DIALECTS], indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure stands what reached the provider, and what it found wrong there."""
    report = yield
    server = getattr(item, "funcargs", {}).get("providers")
    if report.failed and server:
        seen = [f"{one.target}\n{one.body.decode(errors='replace')}" for one in server.requests]
        report.sections.append(("what reached the provider", "\n".join([*seen, *map(repr, server.refused)])[-8000:]))
    return report


@pytest.fixture
def door(request: pytest.FixtureRequest, providers: Providers) -> Iterator[Door]:
    """`DIALECT` of the test's module is the one that its SDK speaks, where that is but one."""
    providers.forget()
    if request.param == DIRECT:
        yield Door(getattr(request.module, "DIALECT", ""), providers.root, KEY, direct=True)
        return
    gateway, key = request.getfixturevalue("_translating")
    request.node.stash[GATEWAYS] = [gateway]
    yield Door(request.param, gateway.url, key, direct=False)
    said = gateway.new_log()
    assert gateway.is_running, f"the gateway has ended with {gateway.exit_code}:\n{said}"
    assert "Traceback" not in said, said
