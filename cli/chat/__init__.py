"""Talking to deployed models: the question, its answer as it streams, and the conversation on a terminal."""
