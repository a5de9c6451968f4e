"""Days for the tests that make quarters by hand: else nobody makes quarters without their days."""

from datetime import UTC

from proxy import rollups
from proxy.models import UsageQuarter


def sum_days() -> None:
    """Of all quarters that are there."""
    for day in UsageQuarter.objects.datetimes("start", "day", tzinfo=UTC):
        rollups._make(day, rollups._DAYS_OF_QUARTERS)
