"""Readers: files that others write become a Run."""
