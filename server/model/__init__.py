"""The model between rounds: the sum of updates, the mean, the optimizer's step, the versions that phones hold."""
