"""Each official SDK against each provider dialect, through a running gateway in front of `tests.providers`."""
