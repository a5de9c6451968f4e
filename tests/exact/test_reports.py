"""Random records over days, some told twice: receipts, reports, CSV and the balance tell the same sum in any zone."""

import csv
import io
import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
import pytest

from accounts import credits, keys
from accounts.models import Account, ApiKey
from models_catalog import pricing
from models_catalog.pricing import Price
from proxy import reports, usage
from proxy.counters.memory import Memory
from proxy.models import UsageRecord
from proxy.serializers import ReceiptSerializer
from proxy.usage import Record
from tests.exact.reports import BY, ZONES, Sums, picodollars, read_lines

FIRST, DAYS = datetime(2026, 10, 30, tzinfo=UTC).timestamp(), 5  # clocks change in St. John's meanwhile
PRICES = (Price(FIRST + 2 * 86400, 199_999, 777_777, 11_000, None), Price(0, 150_000, 600_000, 75_000, 200_000))
GRANTED = Decimal("0.25")


def made(dice: random.Random, number: int, key: ApiKey) -> Record:
    """Its price is that of its moment: it changes at a midnight."""
    created = FIRST + dice.uniform(0, DAYS * 86400)
    price = pricing.in_force(PRICES, created)
    assert price
    record = Record(f"req_{number}", created, 200, key_id=key.pk, key_prefix=key.prefix, account_id=key.account_id)
    record.account, record.metered = key.account.name, key.account.billing != "unmetered"
    record.outcome = dice.choice(["complete", "complete", "cancelled", "incomplete", "failed", "refused"])
    record.model, record.alias, record.provider = dice.choice(["m", "n"]), dice.choice(["", "fast"]), "one"
    if record.outcome == "refused":
        return record
    record.prompt_tokens, record.completion_tokens = dice.randrange(5000), dice.randrange(3000)
    record.cached_tokens, record.estimated = dice.choice([0, dice.randrange(6000)]), dice.random() < 0.2
    worth = pricing.cost(price, record.prompt_tokens, record.completion_tokens, record.cached_tokens)
    assert worth is not None
    record.cost = dice.choice([worth, worth, worth // 2])
    record.shortfall = worth - record.cost
    record.price = (price.input, price.output, price.cached_input, price.cache_write)
    return record


def by_records(records: list[Record], zone: str) -> Sums:
    found: Sums = Counter()
    for record in records:
        day = str(datetime.fromtimestamp(record.created, UTC).astimezone(ZoneInfo(zone)).date())
        figures = {name: getattr(record, name) or 0 for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
        figures |= {"requests": 1, "cost": record.cost or 0, "shortfall": record.shortfall}
        for name, value in figures.items():
            found[day, record.key_prefix, record.model, name] += value
    return found


@pytest.fixture
def holders(db: None) -> list[ApiKey]:
    payer, guest = Account.objects.create(name="payer", billing="prepaid"), Account.objects.create(name="guest")
    credits.grant(payer, GRANTED)
    return [keys.issue(account)[0] for account in (payer, payer, guest)]


@pytest.mark.parametrize("seed", range(4))
def test_it_works(seed: int, holders: list[ApiKey]) -> None:
    dice = random.Random(seed)
    records = [made(dice, number, dice.choice(holders)) for number in range(150)]
    told = [*records, *dice.sample(records, 40)]
    dice.shuffle(told)
    for start in range(0, len(told), 23):
        usage.land(told[start : start + 23], Memory())
    charged = sum(record.cost or 0 for record in records if record.metered)
    assert credits.balance(holders[0].account_id) == GRANTED - Decimal(charged).scaleb(-12)
    assert credits.audit() == []
    assert receipts() == (charged, sum(record.cost or 0 for record in records))
    for zone in ZONES:
        report = reports.answer(reports.read(by=",".join(BY), tz=zone))
        assert read_lines(csv.DictReader(io.StringIO(reports.as_csv(report)))) == by_records(records, zone)
        document = msgspec.json.decode(reports.as_json(report))
        assert read_lines(document["data"]) == by_records(records, zone)
        assert picodollars(document["total"]["cost"]) == sum(record.cost or 0 for record in records)


def receipts() -> tuple[int, int]:
    """What all of them say was charged, and what they cost."""
    found = [ReceiptSerializer(row).data for row in UsageRecord.objects.all()]
    charged = sum(picodollars(receipt["settlement"]["charged"]) for receipt in found)
    return charged, sum(picodollars(receipt["cost"] or "0") for receipt in found)
