"""`make run`'s server: it sets up what is missing and says where everything is, with the secrets once."""

import re
import subprocess

import httpx
import pytest
from django.conf import settings as configured
from django.contrib.auth import get_user_model
from pytest_django import Settings

from accounts.models import ApiKey
from kodna import first_run
from models_catalog import checks
from models_catalog.models import Model, Provider
from tests.conftest import MakeGateway
from tests.gateway import Gateway
from tests.processes import wait_for


@pytest.mark.django_db
def test_it_works() -> None:
    said = first_run.prepare()
    base = f"http://{configured.PROVIDER_ENV['KODNA_LOOPBACK']}"
    assert f"\nDocs     {base}/\nAdmin    {base}/admin/  user admin  password " in said
    key = re.search(r"^API key  (sk-kodna-\w{43})$", said, re.MULTILINE)
    assert key
    assert f'-H "Authorization: Bearer {key[1]}"' in said
    assert get_user_model().objects.get().is_superuser
    assert ApiKey.objects.get().account.name == "default"


@pytest.mark.django_db
def test_a_second_run_keeps_all_and_tells_no_secret() -> None:
    first_run.prepare()
    user, key = get_user_model().objects.get(), ApiKey.objects.get()
    said = first_run.prepare()
    assert "sk-kodna-" not in said
    assert "manage.py changepassword admin" in said
    assert "manage.py keys create" in said
    assert (get_user_model().objects.get().password, ApiKey.objects.get().digest) == (user.password, key.digest)


@pytest.mark.django_db
def test_the_demonstration_comes_when_it_is_switched_on(settings: Settings) -> None:
    settings.DEMO = False
    assert '"model": "kodna-demo"' not in first_run.prepare()
    assert not Provider.objects.filter(slug="kodna-demo").exists()
    count = Provider.objects.count()
    settings.DEMO = True
    first_run.prepare()
    assert Provider.objects.count() == count + 1
    assert Model.objects.filter(slug="kodna-demo").exists()


@pytest.mark.django_db
def test_the_printed_model_is_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "example_model_id", lambda: "vendor/live")
    assert '"model": "vendor/live"' in first_run.prepare()
    monkeypatch.setattr(checks, "example_model_id", str)
    assert '"model": "MODEL"' in first_run.prepare()


def test_a_database_in_a_folder_that_is_open_to_all(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(server="run")
    gateway.data_dir.chmod(0o755)
    path = gateway.data_dir / "kodna.sqlite3"
    path.chmod(0o644)
    gateway.start()
    files = [path, path.with_name("kodna.sqlite3-wal"), path.with_name("kodna.sqlite3-shm")]
    assert {oct(file.stat().st_mode & 0o777) for file in files if file.exists()} == {"0o600"}


def started(gateway: Gateway) -> str:
    """What `run` prints once it serves."""
    gateway.new_log()
    gateway.start()
    return str(wait_for(lambda: gateway.log[-5000:].partition("\nDocs ")[2] and gateway.new_log()))


def test_make_run(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(server="run", env={"KODNA_DEMO": "on"})
    said = started(gateway)
    curl = said[said.index("curl ") :].strip()
    key = re.findall(r"sk-kodna-\w{43}", said)
    assert key[0] == key[1]
    done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=20, check=True)
    assert "data: [DONE]" in done.stdout, done
    assert "demonstration" in "".join(re.findall(r'"content":"([^"]*)"', done.stdout))
    gateway.stop()
    gateway.process = None
    again = started(gateway)
    assert key[0] not in again
    headers = {"authorization": f"Bearer {key[0]}"}
    body = {"model": "kodna-demo", "messages": [{"role": "user", "content": "echo works on"}]}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == "works on"
    assert "Traceback" not in gateway.log
