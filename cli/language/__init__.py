"""The command line: its words and flags, their values, its help and its mistakes."""
