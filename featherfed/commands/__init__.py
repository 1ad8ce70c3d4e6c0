"""Command lines that compose packages which do not know each other."""
