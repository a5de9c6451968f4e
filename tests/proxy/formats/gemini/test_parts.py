"""What Gemini's requests and answers share."""

import pytest

from proxy.formats.canonical import Media, Thinking
from proxy.formats.gemini.parts import keep, kept, kind_of, object_of, read_media

CLAUDES = Thinking("I look.", signature="sig+/", origin="anthropic_messages")


def test_it_works() -> None:
    """Signatures come back in either alphabet of base64."""
    sealed = keep([CLAUDES])
    assert kept(sealed) == [CLAUDES]
    assert kept(sealed.replace("+", "-").replace("/", "_").rstrip("=")) == [CLAUDES]
    assert kept("c2lnbmF0dXJl") is None
    assert kept("a29kbmExLg==") is None


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("image/png", "image"),
        ("audio/L16;rate=24000", "audio"),
        ("video/mp4", "video"),
        ("text/plain", "file"),
        ("", "file"),
    ],
)
def test_kinds_of_media(media_type: str, kind: str) -> None:
    assert kind_of(media_type) == kind


def test_googles_own_files_are_no_urls() -> None:
    for uri in ("gs://b/x", "files/x", "https://generativelanguage.googleapis.com/v1beta/files/x"):
        assert read_media({"fileUri": uri}) == Media("file", file_id=uri, origin="gemini")
    assert read_media({"fileUri": "https://www.youtube.com/watch?v=x"}).url


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a":1}', ({"a": 1}, True)),
        ("", ({}, True)),
        (" ", ({}, True)),
        ("null", ({}, True)),
        ("[1]", ({"input": [1]}, False)),
        ('{"brok', ({"input": '{"brok'}, False)),
    ],
)
def test_arguments_are_an_object(arguments: str, expected: tuple[dict[str, object], bool]) -> None:
    assert object_of(arguments) == expected
