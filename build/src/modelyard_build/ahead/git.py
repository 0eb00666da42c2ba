"""Git: a run that is put before an approver comes from a commit."""

from collections.abc import Iterator

from modelyard_build.ahead.draft import Draft
from modelyard_build.checks.finding import Finding
from modelyard_tracking.origin import git_state


def check(draft: Draft) -> Iterator[Finding]:
    state = git_state(draft.folder)
    if state is None:
        message = f"{draft.folder} is in no repository with a commit"
        yield Finding(
            "git", False, message, "git add -A && git commit, after git init where there is no repository", "warning"
        )
    elif state.dirty:
        changed = ", ".join(line[3:] for line in state.changes[:3])
        more = f" and {len(state.changes) - 3} more" if len(state.changes) > 3 else ""
        message = f"changed since the commit {state.commit[:12]}: {changed}{more}"
        remedy = "Commit it: yard request refuses a run of code that no commit has."
        yield Finding("git", False, message, remedy, "warning")
    else:
        yield Finding("git", True, f"clean, at {state.commit[:12]}")
