"""A receiver of webhooks on this machine, with signatures as standardwebhooks.com has them. `conftest` starts it."""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@dataclass
class Said:
    path: str
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """`status`: what it answers; where `answers` is not set, it says nothing."""

    def __init__(self) -> None:
        self.requests: list[Said] = []
        self.status = 204
        self.answers = threading.Event()
        self.answers.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?x=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(
                    Said(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                )
                if receiver.answers.wait(10):
                    self.send_response(receiver.status)
                    self.send_header("location", receiver.url)
                    self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Not on the tests' stderr."""

        return Handler

    @staticmethod
    def verifies(said: Said) -> bool:
        moment = said.headers["webhook-timestamp"]
        signed = f"{said.headers['webhook-id']}.{moment}.".encode() + said.body
        expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        return said.headers["webhook-signature"] == f"v1,{expected}" and abs(time.time() - int(moment)) < 60

    def stop(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
