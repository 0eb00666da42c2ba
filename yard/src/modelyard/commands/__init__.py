"""The commands of `yard`, by what they are about. Each parses, calls one method of the yard, and prints."""
