"""Kinds of models. Each module makes of a trained model something that can be asked, described and written."""
