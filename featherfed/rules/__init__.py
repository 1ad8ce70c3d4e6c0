"""What a run decides by, as values: how updates become one, how the server steps, and who is asked."""
