"""The server: where it is and who is asking, the one HTTP client, and what a command works with."""
