"""Money in the database: whole picodollars (1e-12 USD) in a big integer, `Decimal` USD in Python.

SQLite keeps decimals as floating point, so that a sum of a million costs would not be exact; integers are, in both
databases. A column holds up to 9.2 million USD, a sum in PostgreSQL any amount.
"""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

PICODOLLARS = 10**12
MOST = Decimal(9_000_000)  # USD


def picodollars(usd: Decimal) -> int:
    """Raises `ValueError` where the amount has more than twelve decimals."""
    scaled = usd.scaleb(12)
    whole = int(scaled)
    if whole != scaled:
        raise ValueError(f"{usd} USD has more than 12 decimals")
    return whole


def usd(amount: int) -> Decimal:
    """Picodollars → USD, with as few decimals as it needs."""
    whole, rest = divmod(abs(amount), PICODOLLARS)
    digits = f"{rest:012d}".rstrip("0")
    return Decimal(f"{'-' if amount < 0 else ''}{whole}{'.' if digits else ''}{digits}")


if TYPE_CHECKING:
    _Base = models.BigIntegerField[Any, Any]
else:
    _Base = models.BigIntegerField


class UsdField(_Base):
    """`Decimal` USD to Python and to forms; whole picodollars to the database."""

    default_validators = [MinValueValidator(-MOST), MaxValueValidator(MOST)]

    @property
    def validators(self) -> list[Any]:  # not the database's range, which is in picodollars
        return [*self.default_validators, *self._validators]

    def from_db_value(self, value: Any, *_: Any) -> Decimal | None:
        return None if value is None else usd(int(value))

    def to_python(self, value: Any) -> Decimal | None:
        if value is None or isinstance(value, Decimal):
            return value
        field = models.DecimalField(max_digits=19, decimal_places=12)
        found: Decimal = field.to_python(value)
        return found

    def get_prep_value(self, value: Any) -> int | None:
        found = self.to_python(value)
        return None if found is None else picodollars(found)

    def formfield(self, **kwargs: Any) -> Any:
        return models.Field.formfield(self, **{"form_class": forms.DecimalField, "decimal_places": 12, **kwargs})
