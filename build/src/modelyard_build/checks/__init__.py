"""The checks a bento must pass. Each is one small file with one function from (bento, subject) to a finding."""
