"""What survives `kill -9`: the run folder, its database, the ledger, and the report read from them."""
