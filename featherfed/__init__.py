"""What the server and the phone share: the wire, the codecs and the learning."""

__version__ = "0.1.0"
