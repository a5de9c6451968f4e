"""The gateways that are compared: how each is configured for the same upstream, started, and known to answer."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import tools
from bench.processes import CLEAN_ENV, GATEWAY_CORE, Tree

PATH, MESSAGES = "/v1/chat/completions", "/v1/messages"
PEER_KEY = "sk-bench"
PROMPT = [
    {"role": "system", "content": "You answer briefly, in plain words, and you say so when you do not know."},
    {"role": "user", "content": "What does a gateway in front of language models do that a reverse proxy does not?"},
]
PLAIN_BODY = {"model": "mock", "messages": PROMPT, "temperature": 0.7, "max_tokens": 256}
START_SECONDS = 120
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says


class FailedError(Exception):
    """A gateway that did not come up, or answered wrongly."""


@dataclass(frozen=True)
class Gateway:
    name: str
    version: str
    port: int
    argv: list[str] = field(default_factory=list)  # empty: the upstream itself, running already
    env: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {PEER_KEY}"})


def folder(name: str) -> Path:
    path = tools.OUT / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def direct(upstream: int) -> Gateway:
    return Gateway("direct", "", upstream)


NGINX_CONF = """\
worker_processes 1; daemon off; pid nginx.pid; error_log error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def nginx(upstream: int) -> Gateway:
    """The floor: a reverse proxy that reads nothing."""
    program, home, port = tools.need("nginx"), folder("nginx"), tools.free_port()
    (home / "nginx.conf").write_text(NGINX_CONF.format(port=port, upstream=upstream), encoding="utf-8")
    version = subprocess.run([program, "-v"], check=True, capture_output=True, text=True, timeout=10).stderr.strip()
    return Gateway("nginx", version.rpartition("/")[2], port, [program, "-p", f"{home}/", "-c", f"{home}/nginx.conf"])


def litellm(upstream: int) -> Gateway:
    """One worker, no database, as its production page advises; model prices from its own package, not the network."""
    programs, home, port = tools.install_python("litellm", tools.LITELLM), folder("litellm"), tools.free_port()
    target = {"model": "openai/mock-model", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "upstream"}
    config = {
        "model_list": [{"model_name": "mock", "litellm_params": target}],
        "litellm_settings": {"set_verbose": False, "json_logs": True, "request_timeout": 600, "telemetry": False},
        "general_settings": {"master_key": PEER_KEY},
    }
    (home / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    argv = [str(programs / "litellm"), "--config", str(home / "config.yaml"), "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    env = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Gateway("litellm", tools.LITELLM.rpartition("==")[2], port, argv, env)


def portkey(upstream: int) -> Gateway:
    node, script, port = tools.need("node"), tools.install_portkey(), tools.free_port()
    headers = {
        "Authorization": f"Bearer {PEER_KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }
    argv = [node, str(script), f"--port={port}", "--headless"]
    return Gateway("portkey", tools.PORTKEY["@portkey-ai/gateway"], port, argv, {"NODE_ENV": "production"}, headers)


def ask(gateway: Gateway, headers: dict[str, str]) -> tuple[int, bytes]:
    """One plain request; status 0 where nothing answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}{PATH}",
        data=json.dumps(PLAIN_BODY).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with LOOPBACK.open(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read()
    except OSError as error:
        return 0, str(error).encode()


def _wait_for_answer(gateway: Gateway, tree: Tree) -> None:
    deadline = time.monotonic() + START_SECONDS
    while tree.alive():
        status, body = ask(gateway, gateway.headers)
        if status == 200:
            if json.loads(body)["usage"]["total_tokens"] != 240:
                raise FailedError(f"not the upstream's answer: {body[:200]!r}")
            return
        if time.monotonic() > deadline:
            raise FailedError(f"no answer after {START_SECONDS} s: {status} {body[:200]!r}")
        time.sleep(0.1)
    raise FailedError(f"ended at once, exit status {tree.exit_status}: {tree.last_words()}")


@contextmanager
def running(gateway: Gateway) -> Iterator[Tree | None]:
    """The gateway, up and having given one good answer. None for the upstream itself."""
    if not gateway.argv:
        yield None
        return
    home = folder(gateway.name)
    log = home / "output.log"
    log.unlink(missing_ok=True)
    tree = Tree(gateway.argv, env=CLEAN_ENV | gateway.env, cwd=home, log=log, core=GATEWAY_CORE)
    try:
        _wait_for_answer(gateway, tree)
        yield tree
    finally:
        tree.stop()
