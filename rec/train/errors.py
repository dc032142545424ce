"""What can go wrong while training that is neither config nor data."""

from __future__ import annotations


class TrainingError(Exception):
    """Training cannot go on: the loss is no number, or a loss does what a setting forbids (exit code 1)."""

    user_error = True  # its text says what to do; a traceback would bury it
