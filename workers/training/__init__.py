"""The trainer: one fine-tuning job, from its specification to an adapter in the object store."""
