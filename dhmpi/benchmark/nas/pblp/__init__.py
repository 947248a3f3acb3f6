"""Stand-ins for the planetary-boundary-layer problems that the guide of DeepHyper on Theta searches."""
