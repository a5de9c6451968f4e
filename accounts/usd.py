"""Money in the database: whole picodollars (1e-12 USD) in a big integer, `Decimal` USD in Python.

SQLite keeps decimals as floating point, so that a sum of a million costs would not be exact; integers are, in both
databases. A column holds up to 9.2 million USD, a sum in PostgreSQL any amount.
"""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.validators import DecimalValidator, MaxValueValidator, MinValueValidator
from django.db import models

PICODOLLARS = 10**12
PICO = 1000  # picodollars in a nanodollar
MOST = Decimal(9_000_000)  # USD


def picodollars(usd: Decimal) -> int:
    """Raises `ValueError` where the amount has more than twelve decimals."""
    numerator, denominator = usd.as_integer_ratio()  # exact, where arithmetic would round to 28 digits
    whole, rest = divmod(numerator * PICODOLLARS, denominator)
    if rest:
        raise ValueError(f"{usd} USD has more than 12 decimals")
    return whole


def nanodollars(amount: int) -> int:
    """Of picodollars, rounded up: against the spender, where it is a cost."""
    return -(-amount // PICO)


def usd(amount: int) -> Decimal:
    """Picodollars → USD, with as few decimals as it needs."""
    whole, rest = divmod(abs(amount), PICODOLLARS)
    digits = f"{rest:012d}".rstrip("0")
    return Decimal(f"{'-' if amount < 0 else ''}{whole}{'.' if digits else ''}{digits}")


def shown(usd: Decimal) -> str:
    """For people: `1,234.50`; every decimal where there are more than two."""
    cents = f"{usd:,.2f}"
    return cents if Decimal(cents.replace(",", "")) == usd else f"{usd:,f}"


_DECIMAL: Any = models.DecimalField(max_digits=19, decimal_places=12)

if TYPE_CHECKING:
    _Base = models.DecimalField[Any, Any]  # what Python sees
else:
    _Base = models.BigIntegerField


class UsdField(_Base):
    """`Decimal` USD to Python and to forms; whole picodollars to the database."""

    default_validators = [DecimalValidator(19, 12), MinValueValidator(-MOST), MaxValueValidator(MOST)]

    @property
    def validators(self) -> list[Any]:  # not the database's range, which is in picodollars
        return [*self.default_validators, *self._validators]  # type: ignore[attr-defined]  # Django's own, not in its stubs

    def from_db_value(self, value: Any, *_: Any) -> Decimal | None:
        return None if value is None else usd(int(value))

    def to_python(self, value: Any) -> Decimal | None:
        found: Decimal | None = _DECIMAL.to_python(value)
        return found

    def get_prep_value(self, value: Any) -> int | None:
        found = self.to_python(value)
        return None if found is None else picodollars(found)

    def formfield(self, **kwargs: Any) -> Any:
        return models.Field.formfield(self, **{"form_class": forms.DecimalField, "decimal_places": 12, **kwargs})
