"""A round from its draw to its close: what is decided, what is sent, what is received, and what is kept of it."""
