"""The command line: arguments in, text or one JSON document out. Decides nothing about repositories."""
