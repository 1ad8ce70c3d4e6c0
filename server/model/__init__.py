"""The model of a run: the sum of a round's updates, the server's step, its file, the versions that phones hold."""
