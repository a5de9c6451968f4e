"""What a row's attempts are in words."""

import pytest

from proxy import attempts
from proxy.models import UsageRecord

FAILED = {"provider": "openai", "credential": "second", "model": "gpt-x-2026", "ms": 1250.4, "status": 503}
FAILED |= {"reason": "status", "at": 0.4, "of": "gpt-x"}
ANSWERED = {"provider": "local", "model": "llama", "ms": 12.4, "at": 1251.0, "of": "other"}


def row(*tried: object) -> UsageRecord:
    return UsageRecord(model="other", attempts=list(tried))


def test_it_works():
    first, second = attempts.tried(row(FAILED, ANSWERED))
    assert first == ("+0 ms", "openai", "second", "gpt-x-2026", "gpt-x", "503", "is not available", "1.25 s", False)
    assert second == ("+1.25 s", "local", "", "llama", "", "", "answered", "12 ms", True)


@pytest.mark.parametrize(("tried", "words"), [
    ([], ""), ([ANSWERED], ""), ([FAILED], "1 try"), ([FAILED, ANSWERED], "2 tries"),
    ([{**FAILED, "reason": "cancelled"}], ""), (["of a release that wrote otherwise"], ""),
])  # fmt: skip
def test_a_mark_where_there_is_something_to_see(tried, words):
    assert attempts.mark(row(*tried)) == words


def test_rows_of_older_releases_say_less():
    (line,) = attempts.tried(row({"provider": "openai", "model": "m", "ms": 3}, "rubbish"))
    assert (line.after, line.of, line.status, line.words) == ("", "", "", "answered")


@pytest.mark.parametrize(("reason", "status", "words"), [
    ("status", 401, "refused the gateway's credential"), ("status", 500, "answered with an error"),
    ("busy", 0, "no place free"), ("refused", 400, "refused the request"), ("new_word", 0, "new word"),
])  # fmt: skip
def test_reasons_in_words(reason, status, words):
    assert attempts.in_words(reason, status) == words
