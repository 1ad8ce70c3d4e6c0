"""The live page: what a run's watchers are told, in a browser, and the same numbers for Prometheus."""
