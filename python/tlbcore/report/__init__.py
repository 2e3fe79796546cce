"""Texts for readers: programs as pseudo-code, results as tables. What is shown is computed elsewhere."""
