"""Vendors' named departures from the dialect that they nearly speak. A provider's row in the catalog names its own."""

NO_STREAM_OPTIONS = "no_stream_options"
"""Refuses a request with `stream_options`; sends usage in the last chunk unasked."""

KNOWN = frozenset({NO_STREAM_OPTIONS})
