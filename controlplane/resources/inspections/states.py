"""The states of an inspection."""

PENDING = "PENDING"
"""A worker is at it, or about to be."""
READY = "READY"
FAILED = "FAILED"
STATES = ("STATE_UNSPECIFIED", PENDING, READY, FAILED)
