"""Proofs over real processes: what is spent, counted and recorded stays exact under load, kills and outages.

`python -m tests.exact SCENARIO` runs one at full size; the `test_…` files here are small versions for `make test`.
"""
