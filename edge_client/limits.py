"""What a phone grants the server that it was told of, which may be anybody (docs/RELIABILITY.md).

What both ends grant alike is in `featherfed/wire/limits.py`. What a model may measure follows from the layout and the
codec, in `edge_client/download.py`.
"""

ANSWER_BYTES = 64 * 1024
"""Of the answer to the HTTP upgrade: ours takes 130, a proxy's page of apology some thousand."""
WELCOME_S = 60.0
"""From Hello to Welcome. A server writes a newcomer down first, and a slow link carries both."""
MAX_PARAMETERS = 1 << 31
"""Of a model that Welcome describes: 8 GiB."""
LEAST_SILENCE_S = 0.5
"""However short a server's heartbeat is: a phone that trains may be late to look at its socket."""
LONGEST_HEARTBEAT_S = 600.0
"""Of what a server says of its pings, so much is believed: a dead connection is found however rarely it asks."""
EARNED_A_MESSAGE = 4
"""Small frames that the server may send for each message of this phone, at any speed: the Ack or Accepted, and for an
update that fits one message the next Task, and the first and last bytes of its model."""
