from datetime import timedelta

import pytest

from accounts.forms import NamesField, RotateForm, split_names


def test_it_works():
    assert split_names("a, b\r\nc d,,\n a") == ["a", "b", "c d"]
    assert split_names("") == []


def test_names_are_lines_of_text_in_the_form():
    field = NamesField()
    assert field.prepare_value(["a", "b"]) == "a\nb"
    assert field.clean(field.prepare_value(["a", "b"])) == ["a", "b"]
    assert field.clean("") == []


@pytest.mark.parametrize(("before", "after", "changed"), [
    (["a", "b"], "a, b", False), (["a", "b"], "b\na", True), ([], " \n", False),
])  # fmt: skip
def test_only_other_names_are_a_change(before, after, changed):
    assert NamesField().has_changed(before, after) is changed


@pytest.mark.parametrize(("choice", "hours"), [("0", 0), ("1", 1), ("24", 24), ("168", 168)])
def test_graces(choice, hours):
    form = RotateForm({"grace": choice})
    assert form.is_valid()
    assert form.duration() == timedelta(hours=hours)
