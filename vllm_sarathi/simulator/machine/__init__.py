"""A model on a machine: what a step costs."""
