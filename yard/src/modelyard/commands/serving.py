"""Commands about building, serving and looking back: build, deploy, rollback, split, shadow, retire, export, trace,
keys."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from modelyard.commands.terminal import Json, Ref, Stage, open_yard, print_json, stderr, stdout
from modelyard_build.steps import Until
from modelyard_serving.kubernetes.forms import Form, To

Reason = Annotated[str, typer.Option(help="Why; kept in the ledger.")]

app = typer.Typer()
keys_app = typer.Typer(help="API keys of callers: create, list, revoke, rotate.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@app.command()
def build(
    ref: Ref,
    until: Annotated[
        Until | None, typer.Option(help="How far; by default as far as there is a docker engine and a registry.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write what the checks found to this file, too.")] = None,
    as_json: Json = False,
) -> None:
    """Make an approved version into a bento and an image, and check both over HTTP as they will serve.

    What was made and checked before, of the same inputs, is not made again. With a registry (yard config: images) the
    image is pushed, by its digest.
    """
    from modelyard.tables import findings_table, seconds_table
    from modelyard_build.junit import write_junit

    yard = open_yard()
    try:
        with stderr().status(f"building {ref}") as status:
            result = yard.build(ref, until, say=lambda what: status.update(f"building {ref}: {what}"))
    finally:
        if junit is not None:
            write_junit(junit, yard.builder.store.findings(yard.approvals.aliases.ref(ref)))
    if as_json:
        print_json(result)
        return
    if result.unchanged:
        stderr().print("unchanged: all of it was made and checked before")
    image = result.image
    for report in (result.report, image.report if image else None):
        if report:
            stderr().print(findings_table(report["findings"]), highlight=False)
    stderr().print(seconds_table(result.seconds))
    stdout().print(f"{result.bento.tag}  sha256:{result.bento.sha256}", highlight=False, soft_wrap=True)
    if image is not None:
        stdout().print(f"{image.digest or image.ref}  {image.id}", highlight=False, soft_wrap=True)
    stderr().print(f"ledger {image.ledger if image else result.ledger}")
    if result.ended:
        stderr().print(f"[yellow]ends here:[/] {escape(result.ended)}", soft_wrap=True)
    stderr().print(f"Next:  yard deploy {ref}")


@app.command()
def deploy(
    ref: Ref,
    variant: Annotated[str | None, typer.Option(help="Its role; the alias by default, or champion.")] = None,
    reason: Reason = "",
    replicas: Annotated[
        int | None, typer.Option(min=1, max=64, help="How many processes answer; as many as there are, or 1.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds an answer of the endpoint may take; as before, or 30.")
    ] = None,
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Run a built version as a variant of its endpoint. Traffic comes with `yard split`."""
    with stderr().status(f"deploying {ref}"):
        deployment = open_yard(stage).deploy(ref, variant, reason, replicas, timeout)
    if as_json:
        print_json(deployment)
    else:
        stderr().print(f"{deployment.name} answers.\nNext:  yard split {deployment.model} champion=80 challenger=20")


@app.command()
def smoke(
    ref: Ref,
    junit: Annotated[Path | None, typer.Option(help="Write what was found to this file, too.")] = None,
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Ask a deployed version the golden rows and the cases over every door; nobody's traffic changes."""
    from modelyard.tables import findings_table
    from modelyard_build.checks.finding import passed
    from modelyard_build.junit import write_junit

    findings = open_yard(stage).smoke(ref)
    if junit is not None:
        write_junit(junit, {f"modelyard.{ref.replace(':', '.').replace('@', '.')}.smoke": findings})
    if as_json:
        print_json(findings)
    else:
        stderr().print(findings_table(asdict(finding) for finding in findings), highlight=False)
    raise typer.Exit(0 if passed(findings) else 4)


@app.command()
def split(
    endpoint: Annotated[str, typer.Argument(help="Such as tumor.")],
    shares: Annotated[
        list[str] | None, typer.Argument(help="variant=percent, such as champion=80 challenger=20.")
    ] = None,
    reason: Reason = "",
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Show or change who answers which share of the units. As few units as possible move."""
    yard = open_yard(stage)
    found = yard.split(endpoint, _shares(shares), reason) if shares else yard.endpoints.endpoint(endpoint)
    if as_json:
        print_json({"endpoint": found.name, "shares": found.table.shares()})
    else:
        stdout().print(", ".join(f"{variant} {share:.2%}" for variant, share in sorted(found.table.shares().items())))


@app.command()
def shadow(
    endpoint: Annotated[str, typer.Argument(help="Such as tumor.")],
    variant: Annotated[str | None, typer.Argument(help="A variant that answers nobody.")] = None,
    percent: Annotated[float, typer.Option(help="How many of the requests it is sent a copy of.")] = 100.0,
    off: Annotated[bool, typer.Option("--off", help="No copies any more.")] = False,
    reason: Reason = "",
    stage: Stage = None,
) -> None:
    """Send a variant a copy of the requests. Its answers are recorded, never returned."""
    if off == bool(variant):
        raise typer.BadParameter("name the variant, or say --off")
    open_yard(stage).shadow(endpoint, variant, percent, reason)
    stderr().print(f"{variant} is sent a copy of {percent:g} % of the requests." if variant else "No shadow any more.")


@app.command()
def rollback(
    endpoint: Annotated[str, typer.Argument(help="Such as tumor.")],
    variant: Annotated[str, typer.Option(help="Which variant of it.")] = "champion",
    reason: Reason = "",
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Put the version before in the place of the one that answers now. Its processes are still there."""
    with stderr().status(f"rolling {endpoint} back"):
        deployment = open_yard(stage).rollback(endpoint, variant, reason)
    if as_json:
        print_json(deployment)
    else:
        stderr().print(f"{deployment.name} is the {variant} of {endpoint} again.")


@app.command()
def retire(ref: Ref, reason: Reason = "", stage: Stage = None) -> None:
    """Stop a deployed version that no variant uses any more."""
    stderr().print(f"{open_yard(stage).retire(ref, reason).name} is stopped.")


@app.command()
def export(
    endpoint: Annotated[str, typer.Argument(help="Such as tumor.")],
    form: Annotated[Form, typer.Option("--as", help="HTTPRoutes of the Gateway API, or KServe's InferenceServices.")],
    to: Annotated[To, typer.Option(help="Where an HTTPRoute leads: to our gateway, or past it.")] = To.GATEWAY,
    gateway: Annotated[
        str, typer.Option(help="Of an HTTPRoute, the Gateway it belongs to: NAME, or NAMESPACE/NAME.")
    ] = "gateway",
    stage: Stage = None,
) -> None:
    """Print an endpoint as YAML, for those who route with the Gateway API or serve with KServe. Nothing is changed.

    --as httproute leads to our gateway, where nothing is lost. With --to models it leads to the models themselves, by
    header and by weight: there are no keys, no scopes and no limits then, a unit does not stay with its variant, and
    pods that `yard deploy` has made refuse what is not from our gateway. --as inferenceservice is one service for each
    variant, without keys and without audit. What is lost is said each time.
    """
    import yaml

    made = open_yard(stage).export(endpoint, form, to, gateway)
    text = yaml.safe_dump_all(made.documents, explicit_start=True, sort_keys=False, allow_unicode=True, width=120)
    print(text, end="")  # noqa: T201 - as it is, and not as wide as a terminal
    for line in made.lost:
        stderr().print(f"lost: {escape(line)}")


@app.command()
def trace(
    prediction_id: Annotated[str, typer.Argument(help="From the answer, or its header x-prediction-id.")],
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Walk one prediction back to its image, approval, run, commit and data, and verify every digest."""
    from modelyard.tables import trace_table
    from modelyard.trace import trace as walk

    found = walk(open_yard(stage), prediction_id)
    if as_json:
        print_json({**asdict(found), "holds": found.holds})
    else:
        stdout().print(trace_table(found))
        stderr().print("every link holds" if found.holds else "[bold red]the chain is broken[/]")
    raise typer.Exit(0 if found.holds else 4)


@keys_app.command("create")
def keys_create(
    caller: Annotated[str, typer.Argument(help="Who will use it.")],
    scope: Annotated[list[str], typer.Option(help="predict:tumor, feedback:tumor, read:tumor; * for all.")],
    days: Annotated[int, typer.Option(min=1, max=3650)] = 90,
    rate: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Requests per second; no limit else.")] = None,
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """A new key. Its token is shown once."""
    key, token = open_yard(stage).issue_key(caller, scope, days, rate)
    if as_json:
        print_json({**asdict(key), "token": token})
    else:
        stdout().print(token, soft_wrap=True, highlight=False)
        stderr().print(f"Key {key.id}, valid until {key.expires_at:%Y-%m-%d}. It is not shown again.")


@keys_app.command("list")
def keys_list(as_json: Json = False, stage: Stage = None) -> None:
    """Every key: whose, what for, how often, until when; and which signing keys there are."""
    from modelyard.tables import keys_table

    yard = open_yard(stage)
    found, signing = yard.keys.all(), yard.signing_keys.live()
    if as_json:
        print_json(found)
    else:
        stdout().print(keys_table(found, signing))
        stderr().print(f"{signing[-1]} signs; signed by {' or '.join(signing)} is accepted")


@keys_app.command("revoke")
def keys_revoke(key: Annotated[str, typer.Argument(help="Its id, from yard keys list.")], stage: Stage = None) -> None:
    """Refuse a key from now on."""
    revoked = open_yard(stage).revoke_key(key)
    stderr().print(f"{revoked.id} of {revoked.caller} is revoked.")


@keys_app.command("rotate")
def keys_rotate(
    retire_old: Annotated[
        bool, typer.Option("--retire-old", help="End the signing key before; what it signed is refused.")
    ] = False,
    stage: Stage = None,
) -> None:
    """Sign with a new key from now on. Keys that the one before has signed are accepted until it is retired."""
    yard = open_yard(stage)
    if retire_old:
        retired = yard.retire_signing_keys()
        stderr().print(f"{', '.join(retired) or 'no old signing key'} ended")
        return
    kid = yard.rotate_signing_key()
    stderr().print(f"{kid} signs from now on. Give callers new keys, then:  yard keys rotate --retire-old")


def _shares(texts: list[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in texts:
        variant, _, number = text.partition("=")
        try:
            shares[variant] = float(number.removesuffix("%"))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not variant=percent, such as champion=80") from None
    if abs(sum(shares.values()) - 100) > 1e-6:
        raise typer.BadParameter(f"the shares sum to {sum(shares.values()):g}, not 100")
    return shares
