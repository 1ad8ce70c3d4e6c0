"""The coordinator: cohort, rounds, aggregation, byte ledger, store and socket service."""
