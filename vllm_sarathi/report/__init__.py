"""One HTML page out of a step log: what was wrong, why, and what to set."""
