"""Makes the reference pages of `docs/` from the code, so that they cannot say anything else: `make docs`."""
