"""bench/report.py: the figures of some rounds in, tables and verdicts out."""

import pytest

from bench import report


def step(cpu_us=100.0, answers=1000, **more):
    return {"cpu_us": cpu_us, "answers": answers, "bad": 0, "broken": 0, "unfinished": 0, "per_second": 10.0, **more}


def round_(ours=100.0, litellm=5000.0, **more):
    return {"daphne": {report.PLAIN: step(ours, **more)}, "litellm": {report.PLAIN: step(litellm)}}


def verdict(rounds, index=0, server="daphne"):
    return report.BUDGETS[index].verdict(rounds, server)


def test_it_works():
    found = verdict([round_(100, 5000), round_(100, 2100), round_(200, 4400)])
    assert (found["value"], found["met"], found["bound"]) == (22, True, "≥ 20")


def test_a_ratio_is_taken_within_a_round_not_between_medians():
    # The medians, 1000 and 100, would give 10; the rounds give 100, 4 and 50.
    assert verdict([round_(10, 1000), round_(100, 400), round_(200, 10000)])["value"] == 50


def test_a_budget_that_is_not_kept_is_missed():
    found = verdict([round_(100, 1500)])
    assert found["met"] is False
    assert "| 15 (≥ 20) **MISSED** |" in report.budgets_table([found])


def test_one_broken_answer_of_ours_leaves_the_budget_unmeasured():
    assert verdict([round_(broken=1)])["met"] is None


def test_a_peer_may_break_a_few():
    rounds = [round_()]
    rounds[0]["litellm"][report.PLAIN]["unfinished"] = 50
    assert verdict(rounds)["met"] is True
    rounds[0]["litellm"][report.PLAIN]["unfinished"] = 60
    assert verdict(rounds)["met"] is None


def test_a_gateway_that_was_left_out_is_not_measured():
    assert verdict([{"daphne": {report.PLAIN: step()}}])["met"] is None
    assert "not measured (≥ 20)" in report.budgets_table(report.verdicts([{}]))


def test_added_latency_is_the_difference_to_the_upstream_itself():
    found = {
        "direct": {report.ALONE: step(None, latency_p50=0.05)},
        "daphne": {report.ALONE: step(latency_p50=0.75)},
    }
    late = next(budget for budget in report.BUDGETS if budget.unit == " ms")
    assert late.verdict([found], "daphne")["value"] == pytest.approx(0.7)
    assert late.verdict([found], "daphne")["met"] is False


def test_of_the_clients_that_left_the_worst_counts():
    found = {"uvicorn": {report.LEAVE: {"streamed": [1.0, 130.0, 2.0], "plain": [1.0]}}}
    streamed, plain = (budget.verdict([found], "uvicorn") for budget in report.BUDGETS[-2:])
    assert (streamed["met"], plain["met"]) == (False, True)


def test_the_medians_table_has_a_row_for_each_gateway():
    text = report.medians_table([round_(100), round_(300), round_(310)], {"daphne": "ours", "nginx": "nginx 1"})
    assert text.splitlines()[2].startswith("| ours | 300 | 10 |")
    assert text.splitlines()[3].startswith("| nginx 1 | – |")


@pytest.mark.parametrize("name", ["complete", "cancelled", "other", "unpriced"])
def test_rows_that_do_not_match_the_answers_are_called_out(name):
    rows = {"complete": 5, "cancelled": 2, "other": 0, "unpriced": 0}
    assert report.rows_line("daphne", 5, 2, rows).endswith("all accounted for")
    assert report.rows_line("daphne", 5, 2, rows | {name: rows[name] + 1}).endswith("**NOT EQUAL**")


def test_memory_per_stream_is_what_the_load_added():
    figures = step(
        answers=998, opened=1000, rss_before=100 * 2**20, rss_peak=200 * 2**20, chunks=5, seconds=2.0, age_p50=1
    )
    figures["broken"] = 2
    text = report.streams_line("daphne", figures)
    assert "998 complete, 2 broken" in text
    assert "memory per stream 102 KiB" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.01234, "0.0123"), (7.4, "7.4"), (99.6, "99.6"), (1234.5, "1,234"), (0.0, "0")]
)
def test_numbers(value, text):
    assert report.number(value) == text


def test_what_admission_costs() -> None:
    line = report.admission_line({"memory": 12.34, "redis": 130.0})
    assert "memory 12.3 µs (≤ 15: met)" in line
    assert "redis 130 µs (≤ 120: MISSED)" in line
    assert "redis" not in report.admission_line({"memory": 1})


def test_what_planning_costs() -> None:
    line = report.planning_line({"5": {"weighted": 1.5, "fastest": 2.5}, "50": {"weighted": 1, "fastest": 60}})
    assert "5 routes 2.5 µs (< 10: met; slowest: fastest)" in line
    assert "50 routes 60 µs (< 50: MISSED; slowest: fastest)" in line
