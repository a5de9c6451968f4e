"""Edits in a JSON object leave every other byte where it was: held against Python's own JSON reader."""

import json
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.formats.splice import Malformed, Members, append

# --- any object, written in any way -----------------------------------------------------------------------------------

letters = st.characters(exclude_categories=["Cs"])  # half a surrogate pair is no character
names = st.text(letters, max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(letters, max_size=12)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
objects = st.dictionaries(names, values, max_size=6)
spaces = st.text(" \t\r\n", max_size=2)
forms = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}, {"separators": (" ,\t", "\r\n: ")}])


@st.composite
def texts(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """An object and how somebody writes it: spacing, escapes, line ends."""
    value = draw(objects)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), **draw(forms))
    if "\\" not in text and draw(st.booleans()):
        text = re.sub(r"(?<=[\"a-z])e(?=[a-z]*\")", r"\\u0065", text)  # letters that need no escape, escaped
    return value, (draw(spaces) + text + draw(spaces)).encode()


@given(texts())
def test_without_edits_every_byte_stays(written: tuple[dict[str, Any], bytes]) -> None:
    _, text = written
    members = Members(text)
    members.check()
    assert members.edit({}) == text
    assert {name: json.loads(raw) for name, raw in members.items()} == json.loads(text)
    assert list(members) == list(json.loads(text))


@given(texts(), objects, st.data())
def test_edits_give_what_a_json_reader_says(
    written: tuple[dict[str, Any], bytes], more: dict[str, Any], data: st.DataObject
) -> None:
    _, text = written
    value = json.loads(text)
    chosen = st.sets(st.sampled_from(sorted(value))) if value else st.just(set())
    change, drop = data.draw(chosen), data.draw(chosen)
    add = {name: new for name, new in more.items() if name not in value}
    edited = Members(text).edit(dict.fromkeys(change, b'"new"'), frozenset(drop), _encoded(add))
    expected = {name: "new" if name in change else old for name, old in value.items() if name not in drop} | add
    assert json.loads(edited) == expected
    assert list(json.loads(edited)) == list(expected)


def _encoded(members: dict[str, Any]) -> dict[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in members.items()}


@given(texts(), st.data())
def test_what_is_not_edited_keeps_its_bytes(written: tuple[dict[str, Any], bytes], data: st.DataObject) -> None:
    _, text = written
    members = Members(text)
    assume(members)
    name = data.draw(st.sampled_from(list(members)))
    start, end = members.find(name)
    assert json.loads(text[start:end]) == json.loads(text)[name]
    assert members.edit({name: b"[1]"}) == text[:start] + b"[1]" + text[end:]


@given(objects, st.data())
def test_a_name_that_stands_twice_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    assume(value)
    name = data.draw(st.sampled_from(sorted(value)))
    pairs = [(key, json.dumps(item)) for key, item in value.items()]
    place = data.draw(st.integers(0, len(pairs)))
    again = json.dumps(data.draw(st.just(value[name]) | values))
    pairs.insert(place, (name, again))
    gap = data.draw(spaces)
    text = "{" + ",".join(f"{gap}{json.dumps(key)}:{gap}{item}" for key, item in pairs) + "}"
    with pytest.raises(Malformed, match="twice"):
        Members(text.encode()).check()
    with pytest.raises(Malformed, match="twice"):
        Members(text.encode()).edit({})


@given(st.dictionaries(names, values, min_size=1), st.dictionaries(st.sampled_from(["cost", "cached_tokens"]), values))
def test_append(value: dict[str, Any], more: dict[str, Any]) -> None:
    assume(value.keys().isdisjoint(more))
    text = json.dumps(value, indent=1).encode()
    found = append(text, _encoded(more))
    assert list(json.loads(found).items()) == [*value.items(), *more.items()]
    assert found.startswith(text[:-2])
    assert found.endswith(b"\n}")


@given(st.binary(max_size=40) | st.text('{}[]":,\\ aé1\n', max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_malformed(data: bytes) -> None:
    try:
        members = Members(data)
        members.check()
    except Malformed:
        return
    assert members.edit({}) == data
    assert isinstance(json.loads(data), dict)


# --- by hand ----------------------------------------------------------------------------------------------------------

BODY = b'{ "a" : 1.0 , "b":[1e0,\t-0.0],"\\u0063" : "\\u00e9\\/", "d":18446744073709551616,\n"e\\"":"\\u0000"}\n'


def test_it_works() -> None:
    edited = Members(BODY).edit({"c": b"2"}, frozenset({"b"}), {"f": b"{}"})
    assert edited == b'{ "a" : 1.0,"\\u0063" : 2, "d":18446744073709551616,\n"e\\"":"\\u0000","f":{}}\n'


@pytest.mark.parametrize(
    ("text", "drop", "expected"),
    [
        (b'{"a":1,"b":2,"c":3}', "a", b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "c", b'{"a":1,"b":2}'),
        (b'{"a":1,"b":2}', "ab", b"{}"),
        (b'{ "a": 1, "b": 2, "c": 3 }', "a", b'{ "b": 2, "c": 3 }'),
        (b'{ "a": 1, "b": 2, "c": 3 }', "b", b'{ "a": 1, "c": 3 }'),
        (b'{ "a": 1, "b": 2, "c": 3 }', "c", b'{ "a": 1, "b": 2 }'),
        (b'{ "a": 1, "b": 2, "c": 3 }', "ab", b'{ "c": 3 }'),
        (b'{ "a": 1, "b": 2 }', "ab", b"{  }"),
        (b"{}", "a", b"{}"),
        (b"{ \n}", "a", b"{ \n}"),
    ],
)
def test_members_are_left_out(text: bytes, drop: str, expected: bytes) -> None:
    assert Members(text).edit({}, frozenset(drop)) == expected


@pytest.mark.parametrize("text", [b"{}", b"{ }", b" {}\n", b"{\n}"])
def test_a_member_is_put_into_an_empty_object(text: bytes) -> None:
    assert json.loads(Members(text).edit({}, add={"a": b"1"})) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":12}',
        b'{"a":12,"a":1}',
        b'{"a":12,"b":3,"a":1}',
        b'{"a":1,"b":{"a":1},"a":{"b":1}}',
        b'{"a":1,"\\u0061":1}',
        b'{ "a" : "," , "a" : "," }',
    ],
)
def test_a_name_twice(text: bytes) -> None:
    with pytest.raises(Malformed, match="twice"):
        Members(text).check()


def test_a_name_twice_further_in_is_not_ours_to_judge() -> None:
    text = b'{"a":{"b":1,"b":2}}'
    assert Members(text).edit({}) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "too early"),
        (b"{", "too early"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":1}{', "trailing"),
        (b"[1]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b'{"a":NaN}', "invalid character"),
        (b'{"a":-Infinity}', "invalid character"),
        (b"{'a':1}", "keys must be strings"),
        (b'{"a":1,}', "trailing comma"),
        (b'{"a":"\x00"}', "invalid character"),
        (b'{"a":01}', "invalid number"),
        (b"\xef\xbb\xbf{}", "invalid character"),
        (b'{"a":"\xff"}', r"not UTF-8 \(byte 6\)"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"\xc3":1}', "not UTF-8"),
        (b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", "too deeply"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "too deeply"),
    ],
)
def test_what_is_no_object(text: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        Members(text)


def test_a_long_name_takes_no_memory_to_skip() -> None:
    """A pattern that remembers each letter of a name takes 100 bytes for it."""
    name = b"a" * 3_000_000 + b"\\n" * 1_000_000
    text = b'{ "' + name + b'":1}'
    assert Members(text).edit({}, add={"b": b"2"}) == text[:-1] + b',"b":2}'
