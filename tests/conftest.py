"""The test house: settings of its own, a real database, real servers, no way out to the network.

The suite runs on PostgreSQL, which is strict where SQLite is not (types, lengths, aborted transactions); with
`KODNA_TEST_DATABASE=sqlite` on SQLite, and `make test` does both for what touches the database. Gateways in processes
of their own run on either, as their tests ask.
"""

import contextlib
import functools
import gc
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import connections

from tests import network
from tests.conformance.matrix import NAME as CONFORMANCE
from tests.conformance.matrix import Matrix
from tests.faults.table import NAME as FAULTS
from tests.faults.table import Table
from tests.gateway import Gateway, catalog, model, provider
from tests.left_out import LeftOut
from tests.processes import stop_all
from tests.services import Postgres, Redis
from tests.tiny_model import TinyModel
from tests.upstreams import Upstream, completion

CI = os.environ.get("CI") == "true"
ON_SQLITE = os.environ.get("KODNA_TEST_DATABASE") == "sqlite"
pytest_plugins = ["pytester"]  # for the tests of our own plugin

TESTER = dict(os.environ)  # for what must reach a package registry
_KEPT = {"KODNA_RECORDINGS", "KODNA_TEST_DATABASE"}  # of the tester's variables
_SETTINGS = {"HOST", "PORT", "WORKERS", "DATABASE_URL", "REDIS_URL"}
_OUTSIDE = ("_KEY", "_BASE_URL", "_TOKEN", "_PROXY")  # credentials, and ways out


def _refuse_settings_read_before() -> None:
    if settings.configured and Path(tempfile.gettempdir()) not in settings.DATA_DIR.parents:
        raise pytest.UsageError(
            f"the settings were read too early, with the data in {settings.DATA_DIR}: "
            "leave DJANGO_SETTINGS_MODULE to tests/conftest.py"
        )


_refuse_settings_read_before()
# In the system's temporary folder: a socket's path must be short, and PostgreSQL's user must get in.
HOME = Path(tempfile.mkdtemp(prefix="kodna-"))
HOME.chmod(0o711)
POSTGRES = Postgres(HOME / "pg")


def _read_settings() -> None:
    """Now, in an environment of our own: neither the tester's variables nor a `.env` nor `./var` has a say in tests."""
    for name in set(os.environ) - _KEPT:
        if name.startswith("KODNA_") or name in _SETTINGS or name.upper().endswith(_OUTSIDE):
            del os.environ[name]
    os.environ["DJANGO_SETTINGS_MODULE"] = "kodna.settings"
    os.environ["KODNA_DATA_DIR"] = str(HOME / "data")
    if not ON_SQLITE:
        os.environ["DATABASE_URL"] = POSTGRES.url
    with contextlib.chdir(HOME):
        settings.DATA_DIR.stat()


_read_settings()
network.refuse_the_rest()
hypothesis.settings.register_profile(
    "house",
    deadline=None,  # a busy machine is no fault
    max_examples=100,
    derandomize=CI,
    database=None,
)
hypothesis.settings.load_profile("house")


# --- how the suite runs ----------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "database: the test uses Django's database (set by itself, for `-m database`)")
    config.addinivalue_line("markers", "any_database: what it checks is the same on each: not run again on SQLite")
    config.pluginmanager.register(LeftOut(fail=CI), "left-out")
    config.pluginmanager.register(Matrix(), CONFORMANCE)
    config.pluginmanager.register(Table(), FAULTS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """The workers of `-n` begin as this process did: each reads settings, and has services and a home, of its own."""
    os.environ.clear()
    os.environ.update(TESTER)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        uses_it = item.get_closest_marker("django_db") or {"db", "transactional_db"} & set(fixtures)
        if uses_it and not item.get_closest_marker("any_database"):
            item.add_marker("database")


def pytest_collection_finish() -> None:
    """The SDKs' half a million objects stay for good: no look for garbage, ours or Python's, goes over them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests so that the ORM stays on this thread and its transaction, and is rolled back with it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    async_to_sync(pyfuncitem.obj)(**{name: pyfuncitem.funcargs[name] for name in names})
    return True


GATEWAYS = pytest.StashKey[list[Gateway]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure stands what the test's gateways logged."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {gateway.url}", gateway.log[-4000:]) for gateway in item.stash.get(GATEWAYS, [])]
    return report


def pytest_unconfigure() -> None:
    stop_all()
    shutil.rmtree(HOME, ignore_errors=True)  # PostgreSQL's user may still be writing its last lines


@pytest.fixture(autouse=True)
def _stay_on_this_machine() -> Iterator[None]:
    """A library may swallow the refusal; the test fails all the same."""
    yield
    attempts = network.attempts.copy()
    network.attempts.clear()
    assert not attempts, f"tests stay on this machine: {attempts}"


# --- services --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres() -> Postgres:
    return POSTGRES.start()


@pytest.fixture(scope="session")
def redis() -> Redis:
    return Redis(HOME).start()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """Of an empty database."""
    return postgres.new_database()


@pytest.fixture
def redis_url(redis: Redis) -> str:
    """Of an empty database."""
    return redis.new_database()


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """pytest-django's hook before it makes the test database: the first test that needs one starts the server."""
    database = connections["default"]
    if database.vendor == "postgresql":
        POSTGRES.start()
    else:
        database.settings_dict["TEST"]["NAME"] = str(HOME / "test.sqlite3")  # a file in WAL, as the product has it


@pytest.fixture(scope="session")
def tiny_model() -> Iterator[TinyModel]:
    folder = HOME / "tiny"
    folder.mkdir()
    server = TinyModel(folder)
    yield server
    server.stop()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A fake provider of this test alone."""
    with Upstream() as server:
        yield server


# --- gateways --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with a migrated SQLite database, to be copied."""
    template = Gateway(tmp_path_factory.mktemp("template"))
    template.migrate()
    return template.data_dir


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a migrated database, to be copied."""
    postgres.execute("CREATE DATABASE kodna_template")
    template = Gateway(tmp_path_factory.mktemp("template"), database_url=postgres.database_url("kodna_template"))
    template.migrate()
    return "kodna_template"


MakeGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def _new_gateway(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> MakeGateway:
    def make(database: str = "sqlite", *, redis: bool = False, **options: Any) -> Gateway:
        folder = tmp_path_factory.mktemp("gateway") / "data"
        shutil.copytree(migrated, folder)
        if database == "postgresql":
            template = request.getfixturevalue("migrated_postgres")
            options["database_url"] = request.getfixturevalue("postgres").new_database(template)
        if redis:
            options["redis_url"] = request.getfixturevalue("redis").new_database()
        return Gateway(folder, **options)

    return make


@pytest.fixture
def make_gateway(_new_gateway: MakeGateway, request: pytest.FixtureRequest) -> Iterator[MakeGateway]:
    """`make_gateway("postgresql", redis=True, server="uvicorn", workers=2)`: migrated; stopped at the end."""
    with contextlib.ExitStack() as stack:

        def make(*words: Any, **options: Any) -> Gateway:
            gateway = _new_gateway(*words, **options)
            stack.push(gateway.__exit__)
            request.node.stash.setdefault(GATEWAYS, []).append(gateway)
            return gateway

        yield make


@pytest.fixture(scope="session")
def _recorder() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def recorder(_recorder: Upstream) -> Upstream:
    """The fake provider behind `vendor/recorded` of the shared gateways, as new."""
    _recorder.requests.clear()
    _recorder.answers(completion())
    return _recorder


def shared_catalog(tiny: TinyModel, recorder: Upstream) -> dict[str, object]:
    """`tiny` and `vendor/tiny` are a real model; `vendor/recorded` is a fake one that records."""
    price = {"input": 1, "output": 2}  # USD per million tokens
    return catalog(
        {"llama.cpp": provider(tiny.base_url, tiny.api_key), "recorder": provider(recorder.base_url)},
        {
            "tiny": model(("llama.cpp", tiny.name), context=8192, output=4096, price=price),
            "vendor/tiny": model(("llama.cpp", tiny.name), price=price),
            "vendor/recorded": model(("recorder", "upstream-model"), price=price),
        },
        aliases={"fast": "tiny"},
    )


@pytest.fixture(scope="session")
def _start_shared(
    _new_gateway: MakeGateway, tiny_model: TinyModel, _recorder: Upstream
) -> Iterator[Callable[[str], tuple[Gateway, str]]]:
    """Each of the two runs from the first test that asks for it to the end of the session, whatever comes between."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(server: str) -> tuple[Gateway, str]:
            if server == "daphne":
                gateway = _new_gateway("sqlite")
            else:
                gateway = _new_gateway("postgresql", redis=True, server="uvicorn", workers=2)
            key = gateway.set_up(shared_catalog(tiny_model, _recorder), name="shared")
            return stack.enter_context(gateway), key

        yield start


@pytest.fixture(params=["daphne", "uvicorn"])
def _shared(request: pytest.FixtureRequest, _start_shared: Callable[[str], tuple[Gateway, str]]) -> tuple[Gateway, str]:
    """Daphne on SQLite, as `make run` has it; uvicorn with two workers on PostgreSQL and Redis, as for production."""
    return _start_shared(request.param)


@pytest.fixture
def gateway(_shared: tuple[Gateway, str], recorder: Upstream, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A running gateway that many tests share, once per server. None of them may end it or make it complain."""
    gateway, _ = _shared
    request.node.stash[GATEWAYS] = [gateway]
    yield gateway
    said = gateway.new_log()
    assert gateway.is_running, f"the gateway has ended with {gateway.exit_code}:\n{said}"
    assert "Traceback" not in said, said
    assert "Warning:" not in said, said


@pytest.fixture
def api_key(_shared: tuple[Gateway, str]) -> str:
    """A key without limits for the shared gateway."""
    return _shared[1]
