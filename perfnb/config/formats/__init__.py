"""Text of config files: what it holds, and the same text with another value in it."""
