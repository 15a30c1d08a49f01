"""Prepared cases on disk, read piece by piece."""
