"""vLLM's engine loop in virtual time, around its real scheduler classes."""
