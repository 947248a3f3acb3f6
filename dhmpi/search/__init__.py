"""Searches: ask for configurations, tell what came of them.  They know nothing of MPI, files or clocks."""
