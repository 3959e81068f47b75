"""A simulator that runs the real scheduler classes in virtual time."""
