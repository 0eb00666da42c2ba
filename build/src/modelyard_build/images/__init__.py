"""Images: made of a checked bento upon a base, by a docker engine, served for the checks, and pushed."""
