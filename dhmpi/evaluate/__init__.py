"""How a run function is evaluated: in a watched child process, or in the rank itself."""
