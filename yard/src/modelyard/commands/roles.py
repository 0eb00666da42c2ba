"""Commands about who may do what in MongoDB: roles, roles create."""

from typing import Annotated, Any

import typer

from modelyard.commands.terminal import Json, open_yard, print_json, stderr, stdout

app = typer.Typer()
group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="roles")


@group.callback()
def roles(context: typer.Context, as_json: Json = False) -> None:
    """Who may do what in MongoDB: every role, what it may do, and whether its user is there and as declared.

    A scientist uses theirs so:

        export YARD_MONGO_URL=$(cat .yard/secrets/roles/scientist)

    The file holds the address with its password. Give it to its person; each other setting stays as it is.
    """
    if context.invoked_subcommand is not None:
        return
    from modelyard.mongo_users import users
    from modelyard.tables import roles_table

    found = users(open_yard().settings)
    if as_json:
        print_json([_as_dict(user) for user in found])
    else:
        stdout().print(roles_table(found))
        if any(user.drifted or not user.exists for user in found):
            stderr().print("\nBring them to the declaration:  yard roles create")


@group.command()
def create(
    rotate: Annotated[
        list[str] | None, typer.Option("--rotate", metavar="ROLE", help="Give this role a new password; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the roles, or mend them. Running it again changes nothing, and no password.

    It takes an administrator: the embedded MongoDB has one, of your own YARD_MONGO_URL names one. Each address is
    written, with its password, to .yard/secrets/roles/ROLE, which only you may read; no password is shown.

    As a person of that role:  export YARD_MONGO_URL=$(cat .yard/secrets/roles/scientist)
    """
    changes, found = open_yard().create_roles(rotate or ())
    if as_json:
        print_json([{**_as_dict(user), "outcome": change.outcome} for change, user in zip(changes, found, strict=True)])
        return
    from modelyard.tables import role_changes_table

    stdout().print(role_changes_table(changes, found))
    without = [user.role.name for user in found if user.address != "works"]
    if without:
        stderr().print(
            f"\nWhere the password of {', '.join(without)} is, this machine does not know; nothing was changed there.\n"
            f"A new one:  yard roles create --rotate {' --rotate '.join(without)}"
        )
    if "omniboard" in (rotate or ()):
        stderr().print("\nOmniboard takes its new password at:  yard up --omniboard")


def _as_dict(user: Any) -> dict[str, Any]:
    role = user.role
    may = {"read": role.reads, "add": role.adds, "change": role.changes, "delete": role.deletes}
    return {
        "role": role.name,
        "who": role.who,
        "may": may,
        "exists": user.exists,
        "deviations": user.deviations,
        "address": user.address,
        "file": str(user.file),
    }
