"""The checks a bento must pass. Each is one small file with one function, `check(served, subject)`, to a finding."""
