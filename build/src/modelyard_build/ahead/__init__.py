"""Ahead: what can be known of a project before anything is trained. Nothing of the project is run.

Each check is one small file with one function from a draft to its findings: those of what is wrong, or one that says
what was found to be right.
"""
