"""`make run`'s server: it sets up what is missing and says where everything is, with the secrets once."""

import re
import subprocess

import httpx
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model

from accounts.models import ApiKey
from kodna import first_run
from tests.conftest import MakeGateway
from tests.gateway import Gateway
from tests.processes import wait_for


@pytest.mark.django_db
def test_it_works() -> None:
    said = first_run.prepare()
    base = f"http://{settings.PROVIDER_ENV['KODNA_LOOPBACK']}"
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
