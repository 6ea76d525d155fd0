"""Whole runs: what a config asks for, carried out, and the folder that keeps it."""
