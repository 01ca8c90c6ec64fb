"""`firectl`, the command line of Hearth. It speaks HTTP to the API and imports no other part of Hearth."""
