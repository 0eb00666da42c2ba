"""Moving: runs between databases, in one content-addressed file."""
