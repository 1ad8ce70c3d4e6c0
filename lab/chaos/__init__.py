"""Faults by schedule against real processes: what was promised is read off the wire and out of the run's folder."""
