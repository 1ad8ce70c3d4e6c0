"""The messages both ends speak, and the session rules as a pure state machine."""
