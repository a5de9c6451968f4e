"""YAML is read strictly and within bounds, and written so that it reads back the same."""

from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models_catalog import catalog_yaml
from models_catalog.catalog_yaml import Flow, FlowList, Invalid


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(Invalid) as caught:
        catalog_yaml.read(text)
    return caught.value.faults


def test_it_works() -> None:
    text = "a: {price: 0.60, context: 128_000, on: true}\nb: [x, null, '4']\n"
    assert catalog_yaml.read(text) == {
        "a": {"price": Decimal("0.60"), "context": 128000, "on": True},
        "b": ["x", None, "4"],
    }


def test_empty_text_is_nothing() -> None:
    assert catalog_yaml.read("# nothing\n") is None


@pytest.mark.parametrize("word", ["yes", "off", "12:30", "2025-01-01", "010", "1e3", "0x1F", ".5", "=", "<<x"])
def test_what_yaml_1_1_would_convert_is_text(word: str) -> None:
    assert catalog_yaml.read(f"a: {word}") == {"a": word}


def test_duplicate_keys_are_all_told_with_their_lines() -> None:
    text = "models:\n  a: 1\n  b: 2\n  a: 3\nmodels: {}\n"
    assert faults(text) == [
        "models.a: given twice, in lines 2 and 4",
        "models: given twice, in lines 1 and 5",
    ]


def test_a_key_that_is_no_text() -> None:
    assert faults("models:\n  4: x\n  on: y\n  true: z") == [
        "models (line 2): the key 4 is not text: put it in quotes",
        "models (line 4): the key true is not text: put it in quotes",
    ]


def test_syntax_is_told_with_line_and_column_but_not_the_text() -> None:
    found = faults("providers:\n  a: {api_key: sk-secret\n")
    assert found[0].startswith("line 3, column 1: not YAML: ")
    assert "sk-secret" not in found[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: !!python/object:os.system {}", "a (line 1): the tag tag:yaml.org,2002:python/object:os.system"),
        ("a: !mine x", "a (line 1): the tag !mine has no meaning here"),
        ("a: !!int x", "a (line 1): not a number"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: not YAML"),
        ("a: *nowhere", "line 1, column 4: not YAML: found undefined alias"),
        ("a: &a [*a]", "a[0] (line 1): contains itself"),
        ("a: " + "[" * 40, "line 1, column 35: not YAML: nested more than 32 deep"),
        ("a: " + "9" * 31, "a (line 1): a number with too many digits"),
        ("a: 1.0e+99", "a (line 1): a number with too many digits"),
        ("a: \0", "not YAML: unacceptable character #x0000"),
        (b"a: \xff", "not UTF-8 text: byte 4"),
    ],
)
def test_refusals(text: str | bytes, fault: str) -> None:
    assert faults(text)[0].startswith(fault)


def test_a_text_that_is_too_large() -> None:
    assert faults(b" " * (catalog_yaml.MAX_BYTES + 1)) == ["larger than 4 MB"]


def test_aliases_that_multiply_do_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_yaml, "MAX_VALUES", 1000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert faults("\n".join(lines)) == ["more than 1000 values"]


def test_anchors_and_merges() -> None:
    text = "slow: &slow {total: 900, idle: 60}\na: {timeout: *slow}\nb: {<<: *slow, idle: 5}\n"
    assert catalog_yaml.read(text) == {
        "slow": {"total": 900, "idle": 60},
        "a": {"timeout": {"total": 900, "idle": 60}},
        "b": {"total": 900, "idle": 5},
    }


def test_only_mappings_merge() -> None:
    assert faults("a: {<<: 5}") == ["a.<< (line 1): only a mapping can be merged"]


@pytest.mark.parametrize(
    ("number", "written"), [("0.6", "0.60"), ("3", "3.00"), ("0.075", "0.075"), ("0.0028", "0.0028"), ("1E+1", "10.00")]
)
def test_prices_are_written_with_two_places_or_more(number: str, written: str) -> None:
    assert catalog_yaml.write({"a": Decimal(number)}) == f"a: {written}\n"


def test_flow_is_written_in_one_line() -> None:
    data = {"price": Flow(input=Decimal("0.15"), output=Decimal("0.60")), "groups": FlowList(["a", "b"])}
    assert catalog_yaml.write(data) == "price: {input: 0.15, output: 0.60}\ngroups: [a, b]\n"


@given(st.dictionaries(st.text(max_size=8), st.text() | st.integers(-999, 999) | st.booleans() | st.none(), max_size=5))
def test_what_is_written_reads_back(data: dict[str, object]) -> None:
    text = catalog_yaml.write(data)
    assert catalog_yaml.read(text) == data
    assert yaml.safe_load(text) == data
