"""The roles that ranks play: master, searcher, evaluator; and the dispatcher, which decides without MPI."""
