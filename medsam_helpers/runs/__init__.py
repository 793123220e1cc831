"""Whole runs: their settings, what they write, experiments of several and their records."""
