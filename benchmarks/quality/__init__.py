"""How good the proposals of dhmpi's searches are, beside those of other tools: see ``__main__``."""
