"""Update compression: coordinates in, bytes out, and back."""
