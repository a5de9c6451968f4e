"""The suite runs with settings, data and a database of its own, whatever the tester's environment says."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from accounts.models import Account
from tests.conftest import HOME, ON_SQLITE
from tests.processes import ROOT

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:langsmith_plugin"]  # as in pyproject.toml, which they miss

TESTERS = """
from django.conf import settings
from tests.processes import ROOT

def test_settings():
    assert settings.DATA_DIR.parent != ROOT
    assert not (settings.ALLOW_NO_AUTH or settings.REDIS_URL)
    assert "tester" not in str(settings.DATABASES)
    assert "OPENAI_API_KEY" not in settings.PROVIDER_ENV
"""

WORKERS = """
import os
from pathlib import Path

import pytest
from django.conf import settings
from tests.conftest import HOME, POSTGRES, TESTER

@pytest.mark.parametrize("number", range(2))
def test_settings(number):
    assert HOME in settings.DATA_DIR.parents
    assert settings.DATABASES["default"]["HOST"] == str(POSTGRES.folder)
    assert TESTER["OPENAI_API_KEY"] == "sk-tester"
    assert "OPENAI_API_KEY" not in os.environ
    Path(TESTER["SEEN"], TESTER["PYTEST_XDIST_WORKER"] + ".home").write_text(str(HOME))
"""


def test_it_works() -> None:
    assert HOME in settings.DATA_DIR.parents
    assert os.environ["DJANGO_SETTINGS_MODULE"] == "kodna.settings"


def test_each_worker_is_alone(tmp_path: Path) -> None:
    """What pytest-xdist's workers begin with is the tester's environment, not that of the process that starts them."""
    (tmp_path / "test_worker.py").write_text(WORKERS)
    theirs = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-tester", "SEEN": str(tmp_path)}
    command = [*PYTEST, "-n", "2", "-p", "tests.conftest", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, env=theirs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    homes = [path.read_text() for path in tmp_path.glob("*.home")]
    assert len(set(homes)) == len(homes) == 2
    assert not [home for home in homes if Path(home).exists()], "gone with the run"


@pytest.mark.django_db
def test_the_database() -> None:
    assert connection.vendor == ("sqlite" if ON_SQLITE else "postgresql")
    assert str(HOME) in str(connection.settings_dict)


@pytest.mark.django_db
@pytest.mark.parametrize("_", [1, 2])
async def test_an_async_test_is_rolled_back(_: int) -> None:
    await Account.objects.acreate(name="once")
    assert await Account.objects.acount() == 1


@pytest.mark.django_db(transaction=True)
def test_another_thread_sees_what_is_committed() -> None:
    Account.objects.create(name="committed")
    counts: list[int] = []

    def count() -> None:
        counts.append(Account.objects.count())
        connection.close()

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    assert counts == [1]


def test_the_testers_environment_has_no_say(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KODNA_ALLOW_NO_AUTH=on\nREDIS_URL=redis://tester\n")
    (tmp_path / "test_settings.py").write_text(TESTERS)
    theirs = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "KODNA_DATA_DIR": str(tmp_path / "precious"),
        "DATABASE_URL": "postgresql://tester@/tester",
        "OPENAI_API_KEY": "sk-tester",
    }
    command = [*PYTEST, "-p", "tests.conftest", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, env=theirs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "precious").exists()
