"""What touches MPI: where ranks are placed, what they say to each other, how they wait."""
