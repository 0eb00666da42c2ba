"""Locks: made of what a project asks for, or taken over from uv and Pipenv; and the wheels that they name."""
