"""`firectl`: reads the command line, runs one command, and tells what went wrong."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import cli.commands  # noqa: F401 — importing it registers the commands
from cli.argv import canonical
from cli.client import DryRun
from cli.errors import CliError, Interrupted, render_error
from cli.output import standard_output
from cli.registry import add_commands, vocabulary
from cli.session import Session, add_advice

_GLOBAL_VALUES = (*("-a", "--account-id", "--api-key", "-p", "--profile", "-o", "--output", "--base-url"),)
_GLOBAL_SWITCHES = ("--dry-run", "--debug")


class Format(StrEnum):
    """Forms of output."""

    TEXT = "text"
    JSON = "json"


class Firectl(TyperGroup):
    """The root command: it puts the command line in order first, and tells every failure in one way."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = canonical(
            sys.argv[1:] if args is None else args, vocabulary(_GLOBAL_VALUES, _GLOBAL_SWITCHES)
        )
        try:
            code = super().main(
                given or ["--help"], prog_name or "firectl", complete_var, False, windows_expand_args, **extra
            )
        except TyperException as error:
            render_error(_usage_error(error), sys.stderr)
            code = 1
        except typer.Abort:
            render_error(Interrupted("stopped"), sys.stderr)
            code = Interrupted.exit_code
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:  # a typer.Context; its base class has no public name
        """Runs the command; a failure becomes its message and an exit code."""
        try:
            return super().invoke(ctx)
        except DryRun as planned:
            sys.stdout.write(json.dumps(planned.request, indent=2, ensure_ascii=False) + "\n")
            return None
        except KeyboardInterrupt:
            failure: CliError = Interrupted("stopped")
        except CliError as error:
            failure = error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            failure = CliError(_reason_of(error))
        add_advice(failure, ctx.obj)
        render_error(failure, sys.stderr)
        raise typer.Exit(failure.exit_code)


app = typer.Typer(
    name="firectl",
    cls=Firectl,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


@app.callback()
def root(
    ctx: typer.Context,
    account_id: Annotated[
        str | None, typer.Option("--account-id", "-a", help="The account to act on.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="The API key for this call.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="A profile in ~/.fireworks/auth.ini.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="The server's address.")] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="The form of the result.", show_default=True)
    ] = Format.TEXT,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run/--no-dry-run", help="Print the request; send nothing."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug/--no-debug", help="Show requests on stderr.")] = False,
) -> None:
    """Upload, fine-tune, deploy and manage models on a Hearth server.

    Commands read verb first or noun first: `firectl create deployment X` is `firectl deployment create X`.
    Global flags may stand anywhere.
    """
    ctx.obj = Session(
        flags={"account_id": account_id, "api_key": api_key, "base_url": base_url},
        output=standard_output(output is Format.JSON),
        profile=profile,
        dry_run=dry_run,
        debug=debug,
    )


add_commands(app)


def main() -> None:
    """The console script: whatever escapes is shown as one line, or whole with --debug."""
    sys.excepthook = _tell_unexpected
    typer.main.get_command(app).main()  # not app(), which would put Typer's own hook in the place of ours


def _tell_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if "--debug" in sys.argv:
        sys.__excepthook__(kind, error, trace)
        return
    told = CliError(
        f"firectl failed: {kind.__name__}: {error}",
        advice=["run it again with --debug to see more"],
    )
    render_error(told, sys.stderr)


def _usage_error(error: TyperException) -> CliError:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "firectl"
    return CliError(error.format_message(), advice=[f"{where} --help"])


def _reason_of(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
