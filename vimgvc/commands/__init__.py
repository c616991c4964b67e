"""One module per verb: a repository, plain arguments and a monitor in, a dataclass out. Nothing here prints."""
