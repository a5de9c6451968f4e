"""A revoked key under load: a second later no process lets it in any more, with Redis and without."""

import threading
import time

from tests.exact import checks
from tests.exact.checks import Verdict
from tests.exact.fleet import House, Plan, Variant, key
from tests.exact.settled import until_landed
from tests.exact.traffic import quick, run_load

PRICE = {"input": 1, "output": 2}
ALLOWED = 1.0
SETTLED = 1.5  # seconds of load after the revocation, in which every process must refuse


def run(house: House, plan: Plan, verdict: Verdict) -> None:
    with house.fleet(plan) as fleet:
        (issued,) = fleet.set_up(PRICE, key())
        fleet.start()
        moment: list[float] = []
        over = threading.Event()

        def revoke() -> None:
            time.sleep(plan.seconds)
            try:
                moment.append(fleet.run(_REVOKE, prefix=issued.prefix))
                time.sleep(SETTLED)
            finally:
                over.set()

        worker = threading.Thread(target=revoke)
        worker.start()
        seen = run_load(fleet.ports, issued.text, plan.streams, over.is_set, quick, plan.seed)
        worker.join()
        until_landed(fleet, verdict)
        (revoked,) = moment
        accepted = {row.marker: row.created for row in fleet.books.rows() if row.status != 401}
        last = max(accepted.values()) - revoked
        verdict.check(last <= ALLOWED, f"the last request was let in {last:.3f} s after the revocation")
        late = [one for one in seen if one.begun > revoked + ALLOWED]
        verdict.check({one.port for one in late} == {*fleet.ports}, "not every process was asked afterwards")
        kinds = {(one.status, one.code) for one in late}
        verdict.check(kinds == {(401, "invalid_api_key")}, f"a second later: {sorted(kinds)}")
        early = [one for one in seen if one.ended < revoked]
        failed = [one for one in early if not one.whole]
        verdict.check(not failed, f"{len(failed)} requests failed before: {[(f.status, f.code) for f in failed[:3]]}")
        verdict.facts.append(
            f"revoked at {checks.at(revoked)}; the last request was let in {last * 1000:+.0f} ms from then; "
            f"{len(early)} served before, {len(late)} refused from a second later on"
        )


_REVOKE = """
import time
from django.core.management import call_command
call_command("keys", "revoke", prefix)
tell(time.time())
"""

SCENARIO = {
    "redis": Variant(Plan(processes=4, streams=40, seconds=5), run),
    "no-redis": Variant(Plan(processes=4, streams=40, seconds=5, redis=False), run),
    "sqlite": Variant(Plan(processes=1, streams=40, seconds=5, database="sqlite", redis=False), run),
}
