"""Tools as Anthropic takes them. What is named as lost is in `test_request_writer`."""

from proxy.formats.anthropic_messages.models import Rules
from proxy.formats.anthropic_messages.tool_writer import cached, tool_name, write_tools
from proxy.formats.base import Losses
from proxy.formats.canonical import Request, Tool, ToolChoice


def test_a_name_that_anthropic_would_refuse_is_mapped_to_one_of_its_own() -> None:
    odd = ["a b", "a.b", "x" * 129, ""]
    names = [tool_name(name) for name in odd]
    assert len(set(names)) == len(odd)
    assert names == [tool_name(name) for name in odd]
    assert max(map(len, names)) <= 128
    assert tool_name("a_b") == "a_b"


def test_the_usual_lifetime_is_not_said() -> None:
    assert cached("5m") == {"type": "ephemeral"}
    assert cached("1h") == {"type": "ephemeral", "ttl": "1h"}


def test_a_request_and_its_tools_stay_as_they_were() -> None:
    raw = {"type": "bash_20250124", "name": "bash", "cache_control": {"type": "ephemeral"}}
    server = Tool("bash", kind="server", origin="anthropic_messages", raw=raw, at="tools[0]")
    request = Request([], tools=[server, Tool("f")], tool_choice=ToolChoice("auto", allowed=("f",)))
    [first, second], choice = write_tools(request, Rules(), Losses({}))
    del first["cache_control"]
    assert "cache_control" in raw
    assert second["name"] == "f"
    assert choice == {"type": "auto"}
