"""A problem whose evaluations take microseconds, for tests and for measurements at scale."""
