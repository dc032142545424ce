"""Experiments: a matrix of trainings from a file, and what it says."""
