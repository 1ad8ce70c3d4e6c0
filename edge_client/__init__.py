"""One phone: join, train, compress, upload, resume."""
