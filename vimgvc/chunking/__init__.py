"""Where a window is cut into chunks. Pure."""
