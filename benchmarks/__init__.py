"""Measurements: speed, memory and utilisation, each beside other tools in the same run.  ``make bench`` runs them."""
