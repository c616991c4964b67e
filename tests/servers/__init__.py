"""Real servers for tests, each started once and shared by the processes of a run, and proxies that fail on purpose."""
