"""`firectl`: reads the command line, runs one command, and tells what went wrong."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from cli.connection.session import Session, add_advice
from cli.errors import CliError, DryRun, Interrupted, render_error
from cli.language import tree
from cli.language.registry import find_by_words, understood
from cli.language.values import QuickParams
from cli.show.output import Output, standard_output

# What a shell reports for a program that wrote into a pipe nobody reads any more: 128 + SIGPIPE.
_BROKEN_PIPE = 141


class Format(StrEnum):
    """Forms of output."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


class Firectl(QuickParams, TyperGroup):
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
        given = list(sys.argv[1:] if args is None else args)
        if given[:1] == ["__complete"]:
            sys.exit(_complete(given[1:]))
        try:
            code = super().main(
                given, prog_name or "firectl", complete_var, False, windows_expand_args, **extra
            )
            sys.stdout.flush()
        except BrokenPipeError:
            code = _reader_left()
        except (CliError, TyperException, typer.Abort, KeyboardInterrupt, OSError) as error:
            code = _told(error, given)
        sys.exit(code or 0)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:  # it is made while the help is shown
            raise typer.Exit(_reader_left()) from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] == ["--version"]:
            args = ["version", *args[1:]]
        line = understood(args)
        unclear = line.dangling or (line.command and find_by_words(line.command) is None)
        if unclear and not ctx.resilient_parsing:
            from cli.language import mistakes

            mistakes.check(line)
        return super().parse_args(ctx, line.canonical if line.command or line.rest else ["--help"])

    def list_commands(self, ctx: Any) -> list[str]:
        return tree.first_words()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return tree.branch_or_leaf(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from cli.language import help

        formatter.write(help.of_firectl(self.params, help.width()))

    def invoke(self, ctx: Any) -> Any:  # a typer.Context; its base class has no public name
        """Runs the command; a failure becomes its message and an exit code."""
        try:
            return super().invoke(ctx)
        except DryRun as planned:
            ctx.obj.output.json(planned.request)
            return None
        except KeyboardInterrupt:
            failure: CliError = Interrupted("stopped")
        except CliError as error:
            failure = error
        except BrokenPipeError:
            raise typer.Exit(_reader_left()) from None
        except OSError as error:
            failure = _failure_of(error)
        add_advice(failure, ctx.obj)
        raise failure


app = typer.Typer(
    name="firectl",
    cls=Firectl,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=dict(tree.SETTINGS),
)


@app.callback()
def root(
    ctx: typer.Context,
    account_id: Annotated[
        str | None, typer.Option("--account-id", "-a", metavar="ID", help="The account to act on.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(metavar="KEY", help="The API key for this call.")] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", metavar="NAME", help="A profile in ~/.fireworks/auth.ini."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", "--server", "-s", metavar="URL", help="The server's address."),
    ] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="The form of the result.", show_default=True)
    ] = Format.TEXT,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run/--no-dry-run", help="Print the request; send nothing."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet/--no-quiet", help="No progress and no notes on stderr, only errors.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug/--no-debug", help="Show requests on stderr.")] = False,
) -> None:
    """Upload, fine-tune, deploy and query models on a Hearth server."""
    flags = {"account_id": account_id, "api_key": api_key, "base_url": base_url, "profile": profile}
    ctx.obj = session_of(flags, standard_output(output.value, quiet=quiet), dry_run=dry_run, debug=debug)


def session_of(
    flags: Mapping[str, str | None], output: Output, *, dry_run: bool = False, debug: bool = False
) -> Session:
    """The session that the global flags ask for."""
    connection = {key: flags.get(key) for key in ("account_id", "api_key", "base_url")}
    return Session(
        flags={**connection, "base_url": _with_scheme(connection["base_url"])},
        output=output,
        profile=flags.get("profile"),
        dry_run=dry_run,
        debug=debug,
    )


def main() -> None:
    """The console script: whatever escapes is shown as one line, or whole with --debug."""
    sys.excepthook = _tell_unexpected
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the shell, as in `firectl list models >&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    typer.main.get_command(app).main()  # not app(), which would put Typer's own hook in the place of ours


def _complete(argv: Sequence[str]) -> int:
    """Answers a shell that asks what may follow; an error text would land in the command line."""
    from cli.language.completion import answer

    with suppress(CliError, OSError, TyperException):
        sys.stdout.write(answer(argv))
        sys.stdout.flush()
    return 0


def _with_scheme(address: str | None) -> str | None:
    """`host:port`, as `--server` takes it, is an address too."""
    if not address or "//" in address or not address.rpartition(":")[2].isdigit():
        return address
    return f"http://{address}"


def _told(error: BaseException, argv: Sequence[str]) -> int:
    """Writes what went wrong; returns the exit code."""
    if isinstance(error, CliError):
        failure = error
    elif isinstance(error, OSError):
        failure = _failure_of(error)
    elif isinstance(error, TyperException):
        from cli.language import mistakes

        failure = mistakes.of_parser(error, argv)
    else:
        failure = Interrupted("stopped")
    render_error(failure, sys.stderr)
    return failure.exit_code


def _reader_left() -> int:
    """Nobody reads stdout any more (`firectl list models | head -1`): that is no failure to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
    return _BROKEN_PIPE


def _tell_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if any(word.startswith("--debug") for word in sys.argv):
        sys.__excepthook__(kind, error, trace)
        return
    told = CliError(
        f"firectl failed: {kind.__name__}: {error}",
        advice=["run it again with --debug to see more"],
    )
    render_error(Interrupted("stopped") if issubclass(kind, KeyboardInterrupt) else told, sys.stderr)


def _failure_of(error: OSError) -> CliError:
    reason = error.strerror or str(error)
    return CliError(f"{error.filename}: {reason}" if error.filename else reason)
