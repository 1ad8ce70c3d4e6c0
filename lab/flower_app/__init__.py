"""What runs inside Flower (flwr): copied into an app of its own, and never imported here but for its counter."""
