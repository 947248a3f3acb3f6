"""Run functions of architecture searches."""
