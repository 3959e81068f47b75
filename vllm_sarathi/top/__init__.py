"""Watches running servers in a terminal, by what they show on /metrics."""
