"""The command line ``vllm-sarathi``."""
