"""Media that stand in a URL themselves."""

import pytest

from proxy.formats.canonical import Media
from proxy.formats.data_url import read_url, write_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/png;base64,QUJD", Media("image", "image/png", "QUJD")),
        ("DATA:image/png;name=a.png;Base64,QUJD", Media("image", "image/png", "QUJD")),
        ("data:image/svg+xml;charset=utf-8,%3Csvg/%3E", Media("image", "image/svg+xml", "PHN2Zy8+")),
        ("data:,a", Media("image", "", "YQ==")),
        ("https://x/data:", Media("image", url="https://x/data:")),
    ],
)
def test_it_works(url: str, expected: Media) -> None:
    assert read_url("image", url) == expected


def test_there_and_back() -> None:
    for url in ("data:image/png;base64,QUJD", "https://x/a.png"):
        assert write_url(read_url("image", url)) == url
    assert write_url(Media("image", data="QUJD"), "image/png") == "data:image/png;base64,QUJD"
