"""Experiments: real processes or virtual time, tables, plots and reports."""
