"""Commands of `manage.py` as an operator types them, run in the process and the transaction of the test."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command


def run(command: str, *words: object) -> tuple[str, str]:
    """What it prints on stdout and stderr."""
    out, err = StringIO(), StringIO()
    call_command(command, *map(str, words), stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def refusal(command: str, *words: object) -> str:
    with pytest.raises(CommandError) as error:
        run(command, *words)
    assert error.value.returncode == 1
    return str(error.value)
