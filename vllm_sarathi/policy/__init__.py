"""Decides: what runs in the next step, from plain facts about the requests.

Nothing here knows vLLM, reads a clock or the environment, or logs, so that every decision
can be read, tested and simulated by itself.
"""
