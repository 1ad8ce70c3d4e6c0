"""A server of some of a run's phones that is one phone of the run's root: neither end alone, and made of both."""
