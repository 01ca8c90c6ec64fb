"""`firectl`, the command line of Hearth. It speaks HTTP to the API and imports no other part of Hearth."""

__version__ = "0.1.0"  # the distribution takes its version from here
