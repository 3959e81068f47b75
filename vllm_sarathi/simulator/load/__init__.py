"""Requests: how long they are and when they arrive."""
