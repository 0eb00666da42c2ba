"""Build: an approved version becomes a bento that was tested exactly as it will be served."""
