"""What a run comes to: figures, tables, pictures."""
