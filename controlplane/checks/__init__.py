"""Checks that need no more than the text at hand: the API and the workers' checks of files share them."""
