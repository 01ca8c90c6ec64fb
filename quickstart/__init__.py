"""A small base model, a dataset and job settings: the main job in minutes, on a machine without a GPU."""
