"""tests/agents/run.py: what it makes of an agent that does its task, and of agents that do not.

The agent is a small one of these tests' own, which speaks chat to the scripted provider itself.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from tests.agents import run
from tests.agents.roster import Agent, Command, Work
from tests.agents.scripted import Scripted
from tests.providers import KEY, scenario

PROGRAM = Path(sys.executable)
CODE = """
import json, sys, time, urllib.error, urllib.request
from pathlib import Path

url, key, model, fault = sys.argv[1:]
schema = {"type": "object", "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "Write", "parameters": schema}}]
messages = [{"role": "user", "content": "Write."}]
while True:
    body = json.dumps({"model": model, "messages": messages, "tools": tools}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body, headers))
    except urllib.error.HTTPError as refusal:
        sys.exit(refusal.read().decode() if fault != "quiet" else 1)
    message = json.load(answer)["choices"][0]["message"]
    messages.append({name: message[name] for name in ("role", "content", "tool_calls") if message.get(name)})
    for call in message.get("tool_calls") or ():
        asked = json.loads(call["function"]["arguments"])
        if fault != "lazy":
            Path(asked["file_path"]).write_text(asked["content"].strip() if fault == "careless" else asked["content"])
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "written"})
    if not message.get("tool_calls"):
        break
print("" if fault == "mute" else message["content"], flush=True)
time.sleep(60 if fault == "stuck" else 0)
"""


def agent(fault: str = "", **more: int) -> Agent:
    def command(work: Work) -> Command:
        return Command(["-c", CODE, work.base_url, work.key, work.model, fault], {"PYTHONUTF8": "1"})

    return Agent("small", "small", "1", "small", "chat", command, **more)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Without a gateway: the agent asks the provider."""
    monkeypatch.setattr(run, "TASK_SECONDS", 10)
    with Scripted() as providers:
        gateway = SimpleNamespace(url=providers.root, is_running=True, new_log=lambda: "")
        yield run.House(tmp_path, gateway, providers, KEY)


@pytest.fixture
def refusing_house(house, monkeypatch):
    monkeypatch.setattr(run.House, "wrong_key", lambda _: ("sk-wrong", scenario.ERRORS[401]))
    return house


def faults(house, fault):
    return "\n".join(run.finish_task(agent(fault), PROGRAM, house, "chat").faults)


def test_it_works(house):
    assert faults(house, "") == ""


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("lazy", "the provider refused: The calls did not write ['first.txt', 'second.txt']"),
        ("careless", "first.txt holds 'Grüße"),
        ("mute", "it did not print the last sentence"),
    ],
    ids=["lazy", "careless", "mute"],
)
def test_a_task_that_is_not_done_is_a_failure(house, fault, found):
    assert found in faults(house, fault)


def test_an_agent_that_hangs_is_ended(house, monkeypatch):
    monkeypatch.setattr(run, "TASK_SECONDS", 0.3)
    assert faults(house, "stuck").startswith("it did not come to an end")


def test_the_model_must_be_behind_the_dialect_in_question(house):
    assert run.finish_task(agent(), PROGRAM, house, "gemini").faults[0] == "the provider was asked in ['chat']"


def test_a_complaint_of_the_gateway_is_a_failure(house):
    house.gateway.new_log = lambda: "Traceback (most recent call last):"
    assert "the gateway's log: Traceback" in faults(house, "")


def test_a_refused_key_that_is_reported_is_fine(refusing_house):
    refusing_house.providers.requests = mock.MagicMock(__bool__=lambda _: False)  # no gateway holds the request back
    assert run.report_wrong_key(agent(), PROGRAM, refusing_house).faults == []


@pytest.mark.parametrize(
    ("fault", "code", "found"),
    [("quiet", 1, "it did not say: The key"), ("", 0, "it ended with 1"), ("", 1, "the provider was asked")],
    ids=["quiet", "code", "asked"],
)
def test_a_refused_key_that_is_not_reported_is_a_failure(refusing_house, fault, code, found):
    row = run.report_wrong_key(agent(fault, code_when_refused=code), PROGRAM, refusing_house)
    assert found in "\n".join(row.faults)
