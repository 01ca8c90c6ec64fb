"""Bytes between this machine and object storage, over signed URLs. The API key never goes there."""

from cli.transfer.fetching import download
from cli.transfer.offer import Offer
from cli.transfer.retries import Patience, patiently
from cli.transfer.sending import Count, Sent, upload

__all__ = ["Count", "Offer", "Patience", "Sent", "download", "patiently", "upload"]
