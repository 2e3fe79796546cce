"""Texts for readers: programs as pseudo-code in the style of the kernel. What is shown is computed elsewhere."""
