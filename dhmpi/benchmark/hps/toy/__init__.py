"""The smallest problems: plain, conditional, with a forbidden clause."""
