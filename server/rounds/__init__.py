"""A round from its draw to its close: the decisions, the downloads, the uploads."""
