"""The scripted provider fails as it says: else the matrix would prove nothing."""

import httpx
import pytest

from tests.faults.faults import ALL, CELLS, FIRST, WORD, Cell, Faults, FullBacklog
from tests.providers import KEY


def ask(server: Faults, cell: Cell) -> httpx.Response:
    asked = {"model": cell.model, "messages": [{"role": "user", "content": "Hi"}], "stream": cell.how == "streamed"}
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{server.base_url}/chat/completions", json=asked, headers=headers, timeout=5)


def test_it_works() -> None:
    cell = Cell("end", "after", "streamed", "chat", "two")
    with Faults() as server:
        text = ask(server, cell).text
    assert WORD in text
    assert FIRST.split()[1] not in text
    assert "DONE" not in text
    assert server.reached == [cell]


def test_before_the_first_token_there_is_only_what_opens_a_stream() -> None:
    with Faults() as server:
        text = ask(server, Cell("malformed", "before", "streamed", "chat", "two")).text
    opening, rest = text.split('data: {"oops\n\n')
    assert '"role":"assistant"' in opening.replace(" ", "")
    assert WORD not in opening
    assert WORD in rest


@pytest.mark.parametrize(("fault", "error"), [("cut", httpx.RemoteProtocolError), ("reset", httpx.ReadError)])
def test_a_connection_that_breaks_off(fault: str, error: type[Exception]) -> None:
    with Faults() as server, pytest.raises(error):
        ask(server, Cell(fault, "before", "plain", "chat", "two"))


def test_a_full_backlog_answers_nobody() -> None:
    with FullBacklog() as full, pytest.raises(httpx.ConnectTimeout):
        httpx.get(full.base_url, timeout=0.2)


def test_every_pair_of_formats_is_in_it() -> None:
    assert {(cell.dialect, cell.speaks) for cell in ALL} == {(one, other) for one in SPOKEN for other in SPOKEN}
    assert {(cell.dialect, cell.second) for cell in ALL} == {(one, other) for one in SPOKEN for other in SPOKEN - {one}}
    assert len(CELLS) == sum(cell.is_possible for cell in ALL), "two cells have one name"


SPOKEN = {"chat", "responses", "messages", "gemini"}
