"""The verbs of the command line: what each takes, calls and shows."""
