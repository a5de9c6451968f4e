"""YAML as a catalog file has it: strict, bounded, and numbers exactly as they are written.

`catalog_file` reads and writes with it, the importers read with it. A key given twice, a tag, a document that is too
large or multiplies itself through aliases are faults, told with their line. `yes`, `on`, `12:30` and dates are text:
only `true` and `false` are flags. What is plain here is a subset of what is plain in YAML 1.1, so that everything
written by a YAML 1.1 writer reads back as it was meant.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import yaml

MAX_BYTES = 4 * 1024 * 1024  # some 25,000 models, and half a minute of reading
MAX_DEPTH = 32
MAX_VALUES = 1_000_000  # after aliases are followed
_MAX_DIGITS = 30
_TAG = "tag:yaml.org,2002:"


class Invalid(Exception):
    """A file that cannot be used, with every fault found in it; none of them quotes a credential."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _name, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?$", "-+0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first))


def read(source: bytes | str) -> Any:
    """The plain data of a YAML text: dict, list, str, int, Decimal, bool, None. Raises `Invalid`."""
    text = _decoded(source)
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise Invalid([_place(error)]) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise Invalid([f"not YAML: {' '.join(str(error).split())}"]) from None
    builder = _Builder()
    data = builder.build(node, "") if node is not None else None
    if builder.faults:
        raise Invalid(builder.faults)
    return data


def _decoded(source: bytes | str) -> str:
    if len(source) > MAX_BYTES:
        raise Invalid([f"larger than {MAX_BYTES // 1024 // 1024} MB"])
    if isinstance(source, str):
        return source
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid([f"not UTF-8 text: byte {error.start + 1}"]) from None


def _place(error: yaml.MarkedYAMLError) -> str:
    """Line, column and problem, without the snippet of the file that PyYAML adds: it may hold a credential."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}not YAML: {error.problem or error.context}"


class _Builder:
    """Turns YAML's nodes into data."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.values = 0
        self.within: set[int] = set()

    def fault(self, node: yaml.Node, path: str, text: str) -> None:
        self.faults.append(f"{path or 'the file'} (line {node.start_mark.line + 1}): {text}")

    def build(self, node: yaml.Node, path: str) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise Invalid([f"more than {MAX_VALUES} values"])
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.within:
            self.fault(node, path, "contains itself")
            return None
        self.within.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.build(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self.mapping(node, path)
        finally:
            self.within.discard(id(node))
        self.fault(node, path, f"the tag {node.tag} has no meaning here")
        return None

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "str" and key_node.value == "<<" and key_node.style is None:
                merged = {**self.merge(value_node, path), **merged}
                continue
            key = self.key(key_node, path)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                self.faults.append(f"{_join(path, key)}: given twice, in lines {lines[key]} and {line}")
                continue
            lines[key] = line
            result[key] = self.build(value_node, _join(path, key))
        return {**merged, **result}

    def merge(self, node: yaml.Node, path: str) -> dict[str, Any]:
        found = self.build(node, _join(path, "<<"))
        parts = found if isinstance(found, list) else [found]
        if not all(isinstance(part, dict) for part in parts):
            self.fault(node, _join(path, "<<"), "only a mapping can be merged")
            return {}
        return {key: value for part in reversed(parts) for key, value in part.items()}

    def key(self, node: yaml.Node, path: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, path, "a key must be text")
            return None
        if node.tag != _TAG + "str":
            self.fault(node, path, f"the key {node.value or 'null'} is not text: put it in quotes")
            return None
        return str(node.value)

    def scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        text = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        if kind in {"int", "float"}:
            return self.number(node, text.replace("_", ""), path)
        self.fault(node, path, f"the tag {node.tag} has no meaning here")
        return None

    def number(self, node: yaml.Node, text: str, path: str) -> int | Decimal | None:
        if not re.fullmatch(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3})?", text):
            self.fault(node, path, "not a number")
            return None
        number = Decimal(text)
        if len(text) > _MAX_DIGITS or abs(number.adjusted()) > _MAX_DIGITS:
            self.fault(node, path, "a number with too many digits")
            return None
        return number if node.tag.endswith("float") else int(number)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class Flow(dict[str, Any]):
    """A mapping to be written in one line."""


class FlowList(list[Any]):
    """A list to be written in one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_decimal(dumper: yaml.SafeDumper, number: Decimal) -> yaml.Node:
    """As prices are written: 0.60 and 3.00, but 0.075 and 0.0028."""
    text = f"{number:f}"
    whole, _, fraction = text.partition(".")
    return dumper.represent_scalar(_TAG + "float", f"{whole}.{fraction.rstrip('0').ljust(2, '0')}")


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """In double quotes where it holds a line break that PyYAML would write as it is, to be folded by the reader."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(Flow, lambda dumper, data: dumper.represent_mapping(_TAG + "map", data, flow_style=True))
_Dumper.add_representer(FlowList, lambda dumper, data: dumper.represent_sequence(_TAG + "seq", data, flow_style=True))
_Dumper.add_representer(Decimal, _write_decimal)


def write(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
