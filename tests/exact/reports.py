"""Random traffic, a price that changes meanwhile: receipts, reports, CSV and the balance tell the same sum.

Days are days of the asker's zone: UTC and two others, one of them at three quarters of an hour.
"""

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from tests.exact import checks
from tests.exact.books import PICODOLLARS, Row, usd
from tests.exact.checks import Verdict
from tests.exact.client import Ask, Seen
from tests.exact.fleet import Fleet, House, Issued, Plan, Variant, key
from tests.exact.provider import Script
from tests.exact.settled import until_landed, until_released
from tests.exact.traffic import marker, run_load

ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns")
GRANTED = 50 * PICODOLLARS
PRICE = {"input": 0.15, "cached_input": 0.075, "output": 0.6}
NEXT_PRICE = {"input": "0.199999", "cached_input": "0.011", "output": "0.777777"}
BY = ("day", "key", "model")
MOST_RECEIPTS = 3000

Sums = Counter[tuple[str, ...]]


def run(house: House, plan: Plan, verdict: Verdict) -> None:
    with house.fleet(plan) as fleet:
        first, second = (
            key("payer", billing="prepaid", granted=usd(GRANTED)),
            key("payer", billing="prepaid", budget="9"),
        )
        keys = fleet.set_up(PRICE, first, second, key("guest"))
        fleet.start()
        changes = fleet.run(_CHANGE, seconds=plan.seconds / 2, model="m", price=NEXT_PRICE)
        by_text = {issued.text: issued for issued in keys}
        texts = [*by_text]
        seen = run_load(
            fleet.ports, "", plan.streams, plan.seconds, lambda dice, _: varied(dice, dice.choice(texts)), plan.seed
        )
        entries = until_landed(fleet, verdict)
        until_released(fleet, verdict)
        rows = fleet.books.rows()
        verdict.facts.append(str(checks.compare(rows, entries, seen, verdict)))
        checks.ledger(fleet.books, verdict)
        checks.prices(rows, verdict)
        checks.audit(fleet.operator, verdict)
        _kinds(rows, verdict)
        _changed(rows, changes, verdict)
        _balance(fleet, keys[0], rows, verdict)
        _receipts(fleet, keys, rows, seen, verdict)
        for zone in ZONES:
            _reports(fleet, keys, rows, zone, verdict)


def varied(dice: random.Random, text: str) -> Ask:
    """Every way in which a request may go and end."""
    tokens = dice.randrange(1, 80)
    script = Script(
        tokens=tokens, pace=dice.uniform(0, 0.03), burst=dice.randrange(1, 6), wait=dice.choice([0, 0, 0.1])
    )
    script.cached, script.usage = dice.choice([0, 0, 5, 10_000]), dice.random() > 0.15
    found = Ask(marker(), text, dice.choice(["m", "m", "b", "fast", "c"]), script, words=dice.randrange(1, 60))
    found.stream = dice.random() < 0.7
    kind = dice.random()
    if kind < 0.15:
        script.fail = {"b-one": 500}
    elif kind < 0.25:
        script.fail = {"b-one": 500, "b-two": 503}
    elif kind < 0.30:
        script.fail = {"m-there": 429, "b-one": 500, "b-two": 500, "c-there": 500}
    elif kind < 0.35:
        script.cut = max(1, tokens // 2)
    elif kind < 0.45:
        found.leave = dice.uniform(0.01, 0.6)
    elif kind < 0.55:
        found.more = {"max_cost_usd": dice.choice([0.00002, 0.0001, 0.01])}
    if dice.random() < 0.5:
        found.max_tokens = dice.choice([tokens, 2 * tokens, max(1, tokens // 3)])
    return found


# The price in UTC's midnight, as far as the gateway is concerned: from one moment on, another holds.
_CHANGE = """
from datetime import timedelta
from decimal import Decimal
from django.utils import timezone
from models_catalog.models import Model, Price
moment = timezone.now() + timedelta(seconds=seconds)
figures = {name: Decimal(value) for name, value in price.items()}
Price.objects.create(model=Model.objects.get(slug=model), valid_from=moment, **figures)
tell(moment.timestamp())
"""


def _kinds(rows: list[Row], verdict: Verdict) -> None:
    """The traffic had what it should have: else equal sums would say little."""
    kinds = Counter(
        {
            "by an alias": sum(bool(row.alias) for row in rows),
            "by a fallback": sum(row.model == "c" and row.alias != "" for row in rows),
            "cached": sum(bool(row.cached) for row in rows),
            "aborted": sum(row.outcome == "cancelled" for row in rows),
            "broken off": sum(row.outcome == "incomplete" for row in rows),
            "failed": sum(row.outcome == "failed" for row in rows),
            "estimated": sum(row.estimated for row in rows),
            "charged": sum(row.metered and bool(row.cost) for row in rows),
        }
    )
    verdict.facts.append(f"{len(rows)} rows: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    for kind, count in kinds.items():
        verdict.check(count > 0, f"no row was {kind}: the run proves nothing")


def _changed(rows: list[Row], moment: float, verdict: Verdict) -> None:
    """Each row was charged at the price of its own moment."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.model == "m" and row.price is not None:
            expected = NEXT_PRICE if row.created >= moment else PRICE
            counts["new" if row.created >= moment else "old"] += 1
            found = {name: Decimal(str(row.price[name])) for name in expected}
            if found != {name: Decimal(str(value)) for name, value in expected.items()}:
                verdict.problems.append(
                    f"{row.request_id} at {row.created - moment:+.3f} s from the change: {row.price}"
                )
    verdict.facts.append(f"the price changed at {checks.at(moment)}: {dict(counts)} rows at each")
    verdict.check(len(counts) == 2, "the price did not change during the run")


def _balance(fleet: Fleet, payer: Issued, rows: Iterable[Row], verdict: Verdict) -> None:
    charged = sum(row.cost or 0 for row in rows if row.account_id == payer.account_id)
    balance = picodollars(fleet.operator.manage("credits", "balance", "payer").strip())
    verdict.check(GRANTED - balance == charged, f"the balance fell by {GRANTED - balance}, the rows say {charged}")
    with fleet.operator.client(payer.text) as client:
        told = client.get("/v1/credits/balance").json()
    verdict.check(picodollars(told["balance"]) == balance, f"/v1/credits/balance: {told}, not {usd(balance)}")


def _receipts(fleet: Fleet, keys: list[Issued], rows: list[Row], seen: list[Seen], verdict: Verdict) -> None:
    """Of each request: what the client was told, what the row and the ledger have."""
    text = {issued.key_id: issued.text for issued in keys}
    told = {one.request_id: one.usage for one in seen if one.whole}
    total: Counter[int] = Counter()
    with fleet.operator.client() as client:
        for row in rows[:MOST_RECEIPTS]:
            if row.key_id not in text:
                continue
            headers = {"authorization": f"Bearer {text[row.key_id]}"}
            receipt = client.get(f"/v1/requests/{row.request_id}", headers=headers).json()
            problem = _receipt(receipt, row, told.get(row.request_id))
            if problem:
                verdict.problems.append(f"receipt of {row.request_id}: {problem}")
            total[row.account_id] += picodollars(receipt.get("settlement", {}).get("charged", "0"))
    if len(rows) <= MOST_RECEIPTS:
        spent = {account: fleet.books.spent(account) for account in total}
        verdict.check(spent == dict(total), f"receipts say {dict(total)}, the ledger {spent}")


def _receipt(receipt: dict[str, Any], row: Row, usage: dict[str, Any] | None) -> str:
    if "usage" not in receipt:
        return str(receipt)
    counted = tuple(receipt["usage"][name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens"))
    if counted != (row.prompt, row.completion, row.cached):
        return f"{counted}, the row {(row.prompt, row.completion, row.cached)}"
    cost = picodollars(receipt["cost"] or "0")
    if cost != (row.cost or 0):
        return f"{cost}, the row {row.cost}"
    if picodollars(receipt["settlement"]["charged"]) != (cost if row.metered else 0):
        return f"{receipt['settlement']} with a cost of {cost}"
    if usage and "cost" in usage and picodollars(str(usage["cost"])) != cost + row.shortfall:
        return f"the answer said {usage['cost']} USD, the row {usd(cost)}"
    return ""


# --- reports ---------------------------------------------------------------------------------------------------------


def _reports(fleet: Fleet, keys: list[Issued], rows: list[Row], zone: str, verdict: Verdict) -> None:
    prefix = {issued.key_id: issued.prefix for issued in keys}
    expected = sums(rows, zone, prefix)
    command = ("usage", "report", "--by", ",".join(BY), "--tz", zone, "--format")
    table = csv.DictReader(io.StringIO(fleet.operator.manage(*command, "csv")))
    _compare(f"CSV in {zone}", read_lines(table), expected, verdict)
    document = json.loads(fleet.operator.manage(*command, "json"))
    _compare(f"JSON in {zone}", read_lines(document["data"]), expected, verdict)
    total = picodollars(document["total"]["cost"])
    verdict.check(total == sum(row.cost or 0 for row in rows), f"JSON in {zone}: in all {document['total']}")
    for account in {issued.account_id for issued in keys}:
        mine = next(issued for issued in keys if issued.account_id == account)
        own = sums([row for row in rows if row.account_id == account], zone, prefix)
        with fleet.operator.client(mine.text) as client:
            answer = client.get("/v1/usage", params={"by": ",".join(BY), "tz": zone}).json()
        _compare(f"/v1/usage in {zone}", read_lines(answer.get("data", [])), own, verdict)


def sums(rows: Iterable[Row], zone: str, prefix: dict[int, str]) -> Sums:
    """By day of the zone, key, model and figure, from the rows."""
    found: Sums = Counter()
    local = ZoneInfo(zone)
    for row in rows:
        day = str(datetime.fromtimestamp(row.created, UTC).astimezone(local).date())
        where = (day, prefix.get(row.key_id, ""), row.model)
        figures = {"requests": 1, "prompt_tokens": row.prompt, "completion_tokens": row.completion}
        figures |= {"cached_tokens": row.cached, "cost": row.cost or 0, "shortfall": row.shortfall}
        for name, value in figures.items():
            found[*where, name] += value
    return found


def read_lines(lines: Iterable[dict[str, Any]]) -> Sums:
    found: Sums = Counter()
    kinds: dict[str, Callable[[Any], int]] = {"cost": picodollars, "shortfall": picodollars}
    for line in lines:
        for name in ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "cost", "shortfall"):
            found[line["day"], line["key"], line["model"], name] += kinds.get(name, int)(line[name])
    return found


def _compare(what: str, found: Sums, expected: Sums, verdict: Verdict) -> None:
    for name in sorted({*found, *expected}):
        if found[name] != expected[name]:
            verdict.problems.append(f"{what}: {name}: {found[name]}, by the rows {expected[name]}")


def picodollars(usd_text: str) -> int:
    return int(Decimal(usd_text).scaleb(12))


SCENARIO = {
    "redis": Variant(Plan(processes=4, streams=60, seconds=20), run),
    "sqlite": Variant(Plan(processes=1, streams=60, seconds=20, database="sqlite", redis=False), run),
}
