"""The phones that are connected: their connections, who has which shard, and what failed."""
