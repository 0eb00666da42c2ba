"""Where things lie in this repository."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PROJECTS = REPOSITORY / "projects"
TUMOR = PROJECTS / "tumor"
