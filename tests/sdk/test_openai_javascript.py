"""The official OpenAI SDK for JavaScript against running gateways: one Node program runs all cases.

Its package is installed from `tests/javascript/package-lock.json` where it is not there yet.
"""

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import TESTER
from tests.gateway import Gateway
from tests.processes import ROOT, clean_environment
from tests.tiny_model import SENTENCE, TOKENS_OUT
from tests.upstreams import Upstream

FOLDER = ROOT / "tests" / "javascript"

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def node() -> str:
    found = shutil.which("node")
    if not found:
        pytest.skip("no node")
    if not (FOLDER / "node_modules" / "openai" / "package.json").exists():
        _install()
    return found


def _install() -> None:
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("no npm")
    done = subprocess.run([npm, "ci"], cwd=FOLDER, env=TESTER, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}")


_seen: dict[int, Results] = {}


@pytest.fixture
def results(node: str, gateway: Gateway, api_key: str, recorder: Upstream) -> Results:
    """What the cases saw, run once per gateway."""
    if gateway.port not in _seen:
        env = {"BASE_URL": gateway.base_url, "API_KEY": api_key, "LIMITED_KEY": gateway.key(rpm=1)}
        command = [node, str(FOLDER / "openai.mjs")]
        env = clean_environment(**env, WORKERS=str(gateway.workers))
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        _seen[gateway.port] = json.loads(done.stdout)
        _seen[gateway.port]["untouched"]["received"] = [request.json for request in recorder.requests]
    return _seen[gateway.port]


def test_it_works(results: Results, gateway: Gateway) -> None:
    seen = results["chat"]
    assert (seen["text"].strip(), seen["model"], seen["finish"]) == (SENTENCE, "tiny", "stop")
    row = gateway.usage_row(seen["requestId"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == (seen["usage"]["prompt_tokens"], TOKENS_OUT)
    assert "openai" in row["client"].lower()


def test_stream(results: Results, gateway: Gateway) -> None:
    seen = results["stream"]
    assert (seen["text"].strip(), seen["models"], seen["withUsage"]) == (SENTENCE, ["tiny"], [])
    assert seen["chunks"] >= len(SENTENCE.split())
    row = gateway.usage_row(seen["requestId"])
    assert (row["streamed"], row["completion_tokens"], row["estimated"]) == (True, TOKENS_OUT, False)


def test_stream_with_usage(results: Results) -> None:
    [last] = results["streamWithUsage"]["withUsage"]
    assert (last["choices"], last["usage"]["completion_tokens"]) == (0, TOKENS_OUT)
    assert results["streamWithUsage"]["text"].strip() == SENTENCE


def test_models(results: Results) -> None:
    assert {"tiny", "vendor/tiny", "vendor/recorded"} <= set(results["models"]["ids"])
    assert (results["model"], results["modelWithSlash"]) == ({"id": "tiny"}, {"id": "vendor/tiny"})
    assert results["slash"] == {"model": "vendor/tiny"}


def test_the_request_id(results: Results) -> None:
    seen = results["rawResponse"]
    assert seen["header"]
    assert seen["header"] == seen["requestId"] == seen["onAnswer"]


def test_every_parameter_arrives_untouched(results: Results) -> None:
    assert results["untouched"]["received"] == [results["untouched"]["sent"]]


@pytest.mark.parametrize(
    ("case", "raised", "code"),
    [
        ("badKey", "AuthenticationError", "invalid_api_key"),
        ("unknownModel", "NotFoundError", "model_not_found"),
        ("tooMany", "RateLimitError", "rate_limit_exceeded"),
    ],
)
def test_refusals(results: Results, case: str, raised: str, code: str) -> None:
    assert (results[case]["raised"], results[case]["code"]) == (raised, code)
    assert results[case]["requestId"]


@pytest.mark.parametrize("case", ["noMessages", "wrongType"])
def test_wrong_messages(results: Results, case: str) -> None:
    assert results[case]["raised"] == "BadRequestError"
    assert "messages" in results[case]["param"]


def test_when_to_come_back(results: Results) -> None:
    assert 1 <= int(results["tooMany"]["retryAfter"]) <= 61
