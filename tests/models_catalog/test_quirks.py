"""The words that a provider's row may name: those that the formats know, and no others."""

import pytest
from django.core.exceptions import ValidationError

from models_catalog.quirks import QUIRKS, validate_quirks
from models_catalog.snapshot import API_KEY_HEADER
from proxy.formats import openai_chat
from proxy.formats.anthropic_messages import models as anthropic_messages_models


def test_it_works() -> None:
    validate_quirks([])
    validate_quirks(list(QUIRKS))


def test_every_word_is_known_to_a_format_and_none_is_missing() -> None:
    assert set(QUIRKS) == {API_KEY_HEADER} | openai_chat.QUIRKS | anthropic_messages_models.QUIRKS


@pytest.mark.parametrize("value", [["develper_role"], ["developer_role", 5], [None]])
def test_another_word(value: list[object]) -> None:
    with pytest.raises(ValidationError, match="There is no quirk"):
        validate_quirks(value)
