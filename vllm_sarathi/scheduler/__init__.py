"""Touches vLLM's scheduler: reads its queues, applies a plan, restores what it changed."""
