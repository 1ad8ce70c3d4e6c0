"""What every command of ours has in common: how it starts, how it is stopped, and streams that may go away."""
