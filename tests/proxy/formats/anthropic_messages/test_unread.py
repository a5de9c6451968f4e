"""What the canonical form of a Messages request has no place for, by its path."""

from proxy.formats.anthropic_messages.unread import unread_blocks, unread_of_messages
from tests.proxy.formats import messages as wire


def test_what_is_not_read_of_messages_and_blocks_is_kept_by_its_path() -> None:
    code = {"type": "code_execution_20260120", "tool_id": "s"}
    uses = [
        {"type": "tool_use", "id": "a", "name": "f", "input": {}, "caller": code, "toolset_name": "browser"},
        {"type": "tool_use", "id": "b", "name": "f", "input": {}, "caller": {"type": "direct"}, "toolset_name": None},
    ]
    inside = [{"type": "text", "text": "t", "odd": 1}]
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": inside, "toolset_name": "browser"},
        {"type": "tool_result", "tool_use_id": "b"},
    ]
    picture = {"type": "image", "source": {"type": "url", "url": "https://a/b"}}
    document = {"type": "document", "source": {"type": "content", "content": [*inside, picture]}}
    request = wire.request(
        system=[{"type": "text", "text": "Be kind.", "odd": 2}],
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": uses},
            {"role": "user", "content": [*results, document], "id": "m"},
        ],
    )
    assert request.extra == {
        "system[0].odd": 2,
        "messages[1].content[0].caller": code,
        "messages[1].content[0].toolset_name": "browser",
        "messages[2].id": "m",
        "messages[2].content[0].content[0].odd": 1,
        "messages[2].content[0].toolset_name": "browser",
        "messages[2].content[2].source.content[1]": picture,
    }
    assert "messages[1].content[0].caller" not in wire.written(request)[1].names  # its own writer says it


def test_what_others_can_say_is_not_named() -> None:
    text = {"type": "text", "text": "Hi", "citations": None, "cache_control": {"type": "ephemeral"}}
    assert unread_blocks([text, {"type": "container_upload", "file_id": "f"}, "odd", {"type": 7}], "system") == {}
    assert unread_of_messages([{"role": "user", "content": "Hi", "output_config": {}}, "odd"]) == {}
    assert unread_of_messages(None) == {}
