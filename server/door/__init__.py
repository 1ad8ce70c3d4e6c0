"""Who may come in: the listening socket, TLS, tokens, and the limits that every connection is held to."""
