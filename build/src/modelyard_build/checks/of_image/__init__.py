"""What an image must keep beyond what its bento has shown: who it runs as, what it may write, says and weighs."""
