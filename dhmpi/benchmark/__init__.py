"""Problems that the README, the tests and the benchmarks run; they use the public API only."""
