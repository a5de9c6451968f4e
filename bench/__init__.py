"""The benchmark: `python -m bench` measures this gateway beside its peers. No part of the product imports it."""
