"""One phone link: rate, delay, drops and traces, on real sockets and in virtual time."""
