"""The doors: how callers put their rows and take their answers. Each is a module of pure functions, see `door`."""
