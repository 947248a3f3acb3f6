"""Architecture search problems that run on a laptop; each module has a ``Problem``.  Nothing is downloaded."""
