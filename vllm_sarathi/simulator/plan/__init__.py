"""The cheapest deployment that serves a load within its objectives (Vidur-Search)."""
