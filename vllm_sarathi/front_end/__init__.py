"""The front-end process: what clients say becomes checked objectives, before the engine core."""
