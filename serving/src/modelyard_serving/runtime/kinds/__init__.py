"""Kinds of models. Each module takes the bytes of one verified file and gives a function that answers tables."""
