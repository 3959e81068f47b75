"""Latency definitions, and what the engine counts and exports."""
