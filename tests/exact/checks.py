"""The accounts held against each other: the installation's rows and ledger, the provider's own, the clients' own."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.exact.books import Books, Row, moment, usd
from tests.exact.client import Seen
from tests.exact.provider import Entry
from tests.gateway import UNCHECKED, CommandFailed, Gateway

EVER = "0001-01-01"  # the day of `KeySpend` that holds a key's sum over all days
MOST_SHOWN = 12
YOUNG = 3.0  # seconds
MOST_BEHIND = 64  # tokens that a client had of a killed process's stream, and its row does not


@dataclass
class Verdict:
    """What a run has shown: `problems` empty is proof; `facts` say how much there was to go wrong."""

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def check(self, fine: bool, problem: str) -> None:
        if not fine:
            self.problems.append(problem)

    def __str__(self) -> str:
        lines = ["FAILED" if self.problems else "ok"] + [f"  {fact}" for fact in self.facts]
        lines += [f"  ! {problem}" for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"  ! and {len(self.problems) - MOST_SHOWN} more")
        return "\n".join(lines)


# --- the ledger ------------------------------------------------------------------------------------------------------


def audit(gateway: Gateway, verdict: Verdict) -> None:
    """The operator's own: `credits audit` ends with 1 where a sum differs."""
    try:
        gateway.manage("credits", UNCHECKED, "audit")
    except CommandFailed as failed:
        verdict.problems.append(f"credits audit: {failed.stdout.strip()[-600:]} {failed.stderr.strip()[-300:]}")


def ledger(books: Books, verdict: Verdict) -> None:
    """Entries, balances, keys' sums, quarters, days and rows say the same, to the last picodollar."""
    entries, balances, spends, rows, quarters, days = books.select(
        "SELECT account_id, kind, amount, request_id FROM accounts_ledgerentry",
        "SELECT account_id, amount FROM accounts_balance",
        "SELECT key_id, day, amount FROM accounts_keyspend",
        "SELECT request_id, created_at, account_id, key_id, model, provider, cost, metered, prompt_tokens, "
        "completion_tokens, cached_tokens, shortfall FROM proxy_usagerecord",
        "SELECT * FROM proxy_usagequarter",
        "SELECT * FROM proxy_usageday",
    )
    kept = {row["account_id"]: int(row["amount"]) for row in balances}
    by_entries: Counter[int] = Counter()
    for entry in entries:
        by_entries[entry["account_id"]] += int(entry["amount"])
    _same("balance of account", kept, by_entries, verdict)
    charged = {entry["request_id"]: -int(entry["amount"]) for entry in entries if entry["kind"] == "charge"}
    costs = {row["request_id"]: int(row["cost"]) for row in rows if row["metered"] and row["cost"]}
    _same("charge for", {name: amount for name, amount in charged.items() if amount}, costs, verdict)
    _spends(spends, rows, verdict)
    _sums("quarter", 900, quarters, rows, verdict)
    _sums("day", 86400, days, rows, verdict)


def _spends(spends: Iterable[dict[str, object]], rows: Iterable[dict[str, object]], verdict: Verdict) -> None:
    kept: Counter[tuple[object, str]] = Counter()
    for row in spends:
        if str(row["day"]) != EVER:
            kept[row["key_id"], str(row["day"])] += int(str(row["amount"]))
    found: Counter[tuple[object, str]] = Counter()
    for row in rows:
        if row["key_id"] and row["cost"]:
            found[row["key_id"], str(moment(row["created_at"]).astimezone(UTC).date())] += int(str(row["cost"]))
    _same("spending of key and day", kept, found, verdict)


def _sums(
    what: str, span: int, sums: Iterable[dict[str, object]], rows: Iterable[dict[str, object]], verdict: Verdict
) -> None:
    kept, found = Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
    names = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost", "shortfall")
    for row in sums:
        where = (
            moment(row["start"]).timestamp(),
            *(row[name] for name in ("account_id", "key_id", "model", "provider")),
        )
        kept[*where, "requests"] += int(str(row["requests"]))
        for name in names:
            kept[*where, name] += int(str(row[name]))
    for row in rows:
        start = moment(row["created_at"]).timestamp() // span * span
        where = (start, row["account_id"] or 0, row["key_id"] or 0, row["model"], row["provider"])
        found[*where, "requests"] += 1
        for name in names:
            found[*where, name] += int(str(row[name] or 0))
    _same(what, kept, found, verdict)


def _same(what: str, kept: dict, found: dict, verdict: Verdict) -> None:  # type: ignore[type-arg]
    for name in sorted({*kept, *found}, key=str):
        if kept.get(name, 0) != found.get(name, 0):
            verdict.problems.append(f"{what} {name}: kept {kept.get(name)}, by the entries or rows {found.get(name)}")


def cap(books: Books, account_id: int, key_id: int, most: int, verdict: Verdict) -> int:
    """Not a picodollar beyond `most`: by the ledger's entries, where there are any, and by the rows."""
    by_rows, by_ledger = books.spent_by_key(key_id), books.spent(account_id)
    verdict.check(by_rows <= most, f"{usd(by_rows)} USD charged by the rows: more than {usd(most)}")
    verdict.check(by_ledger <= most, f"{usd(by_ledger)} USD charged by the ledger: more than {usd(most)}")
    return by_rows


def prices(rows: Iterable[Row], verdict: Verdict) -> None:
    """Of each row: what was charged and what was not is what its tokens cost, and no more than was held."""
    for row in rows:
        if row.worth is None:
            continue
        charged = row.cost or 0
        if charged + row.shortfall != row.worth:
            verdict.problems.append(f"{row.request_id} ({row.outcome}): {charged} + {row.shortfall} is not {row.worth}")
        if row.held is not None and charged > row.held:
            verdict.problems.append(f"{row.request_id}: charged {charged} with {row.held} held")


# --- rows, the provider's account, the clients' ----------------------------------------------------------------------


@dataclass
class Tally:
    """`behind`: tokens of partial answers that the provider says it has written and the rows do not have."""

    complete: int = 0
    partial: int = 0
    refused: int = 0
    unseen: int = 0  # nothing came back to the client
    bounded: int = 0  # the gateway ended a stream that could not be paid further
    behind: int = 0
    most_behind: int = 0
    prompts: int = 0  # tokens of prompts that died before they were counted
    finished_unseen: int = 0  # whole by the row and the provider; the last bytes died with the process
    trouble: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)

    def lag(self, tokens: int) -> None:
        self.behind += tokens
        self.most_behind = max(self.most_behind, tokens)

    def __str__(self) -> str:
        said = [
            f"{self.complete} complete, {self.partial} partial, {self.refused} refused, {self.unseen} unseen answers",
            f"{self.bounded} streams ended for want of credit",
            f"{self.finished_unseen} whole but for the last bytes",
            f"the provider wrote {self.behind} tokens more than partial rows say, at most {self.most_behind} of one",
            f"{self.prompts} tokens of prompts were not counted yet",
        ]
        return "; ".join([*said, *(f"{code} {count}" for code, count in self.codes.most_common())])


def compare(rows: Sequence[Row], entries: Sequence[Entry], seen: Sequence[Seen], verdict: Verdict) -> Tally:
    """Every request that a client made, as the client, the provider and its row tell it."""
    tally = Tally()
    by_marker: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_marker[row.marker].append(row)
    asked: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        asked[entry.marker].append(entry)
    for marker, found in by_marker.items():
        verdict.check(len(found) == 1, f"{marker}: {len(found)} rows")
    made = {one.ask.marker for one in seen}
    verdict.check(made >= {*asked}, f"asked of the provider, but by no client: {sorted({*asked} - made)[:5]}")
    for one in seen:
        row = by_marker[one.ask.marker][0] if by_marker[one.ask.marker] else None
        problem = _one(one, row, asked[one.ask.marker], tally)
        if problem:
            verdict.problems.append(f"{one.ask.marker} {one.request_id}: {problem}")
    return tally


def _one(seen: Seen, row: Row | None, entries: list[Entry], tally: Tally) -> str:
    """What is wrong with one request; empty: nothing."""
    if seen.status not in {0, 200}:
        tally.refused += 1
        tally.codes[f"{seen.status} {seen.code}"] += 1
        return "" if row is None or not row.cost else f"refused with {seen.status}, and charged {row.cost}"
    if seen.trouble:
        tally.trouble[seen.trouble] += 1
    if row is None:
        if not seen.status and not entries:
            tally.unseen += 1
            return ""
        return (
            f"no row: the client saw {seen.status}, {seen.tokens} tokens, the provider was asked {len(entries)} times"
        )
    if seen.request_id and seen.request_id != row.request_id:
        return f"the row has the id {row.request_id}"
    if seen.whole and not seen.error:
        return _whole(seen, row, entries, tally)
    return _partial(seen, row, entries, tally)


def _whole(seen: Seen, row: Row, entries: list[Entry], tally: Tally) -> str:
    tally.complete += 1
    if row.outcome != "complete":
        return f"the client has the whole answer, the row says {row.outcome} ({row.error_code})"
    answered = [entry for entry in entries if entry.status == 200]
    if not answered:
        return "the client has an answer that no provider gave"
    entry = answered[-1]
    if seen.tokens != row.completion:
        return f"the client has {seen.tokens} tokens, the row {row.completion}"
    usage = seen.usage
    if usage and (usage["prompt_tokens"], usage["completion_tokens"]) != (row.prompt, row.completion):
        told = f"{usage['prompt_tokens']} + {usage['completion_tokens']}"
        return f"the answer's usage says {told}, the row {row.prompt} + {row.completion}"
    # The gateway ended it; perhaps when the provider had written all, and nobody had read the rest yet.
    if entry.end != "whole" or row.error_code == "insufficient_credits":
        tally.bounded += 1
        tally.lag(entry.written - row.completion)
        if seen.finish != "length":
            return f"ended by the gateway with {seen.finish!r}"
        if row.prompt != entry.prompt:
            return f"the row has a prompt of {row.prompt} tokens, the provider {entry.prompt}"
        return "" if row.completion <= entry.written else f"{row.completion} tokens, {entry.written} by the provider"
    theirs, ours = (entry.prompt, entry.written), (row.prompt, row.completion)
    if theirs != ours:
        return f"the provider counts {theirs}, the row {ours}"
    return "" if row.estimated or row.cached == entry.cached else f"cached: {entry.cached}, the row {row.cached}"


def _partial(seen: Seen, row: Row, entries: list[Entry], tally: Tally) -> str:
    written = sum(entry.written for entry in entries)
    if row.outcome == "complete":
        if not (seen.left or seen.trouble):
            return f"the row is complete; the client saw {seen.status} {seen.error}"
        tally.finished_unseen += 1
        return "" if row.completion == written else f"complete with {row.completion} tokens, {written} by the provider"
    tally.partial += 1
    if row.outcome not in {"incomplete", "cancelled"} and (seen.status or row.cost):
        return f"the client has a part of it, the row says {row.outcome}"
    if row.completion > written:
        return f"{row.error_code}: the row has {row.completion} tokens, the provider wrote {written}"
    if entries and row.prompt != entries[-1].prompt:
        if row.prompt or not _too_young(row, entries[-1]):
            return f"{row.error_code}: the row has a prompt of {row.prompt} tokens, the provider {entries[-1].prompt}"
        tally.prompts += entries[-1].prompt
    tally.lag(written - row.completion)
    if row.completion + MOST_BEHIND < seen.tokens:
        return f"{row.error_code}: the client has {seen.tokens} tokens, the row only {row.completion}"
    return ""


def _too_young(row: Row, entry: Entry) -> bool:
    """Killed before its prompt was counted: plain answers, and streams of up to a second on a machine that keeps up."""
    return row.error_code == "process_killed" and (not row.streamed or entry.ended - entry.begun < YOUNG)


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%f")[:-3]
