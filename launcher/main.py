"""`hearth`: starts the platform, or one of its parts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from launcher.admin import admin

app = typer.Typer(
    name="hearth",
    help="A self-hosted model platform that speaks the Fireworks API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(admin, name="admin")

DataDirOption = Annotated[Path, typer.Option("--data-dir", help="Everything the platform keeps is in here.")]
DEFAULT_DATA_DIR = Path(".hearth")


@app.command()
def up(
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on. [default: 8600, or a free one]")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running in the background.")] = False,
) -> None:
    """Start the whole platform on this machine: services, control plane, gateway and workers."""
    if detach:
        from launcher.background import start_in_background

        raise typer.Exit(start_in_background(data_dir, host, port))
    from launcher.up import run_platform

    raise typer.Exit(run_platform(data_dir, host, port))


@app.command()
def down(data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Stop the platform that runs on a data directory, and wait until it is gone."""
    from launcher.background import stop

    raise typer.Exit(stop(data_dir))


@app.command()
def status(data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Show what runs on a data directory; exits with 1 when nothing does."""
    from launcher.background import show_status

    raise typer.Exit(show_status(data_dir))


@app.command()
def api() -> None:
    """Run the control plane with the settings of HEARTH_* variables."""
    from controlplane.config import load_settings
    from launcher.parts import api_argv

    become(api_argv(load_settings()))


@app.command()
def gateway() -> None:
    """Run the gateway with the settings of HEARTH_* variables."""
    from controlplane.config import load_settings
    from launcher.parts import gateway_argv

    become(gateway_argv(load_settings()))


@app.command()
def worker(
    threads: Annotated[int, typer.Option(min=1, help="Tasks at the same time.")] = 8,
    queues: Annotated[str, typer.Option(help="Queues to take tasks from.")] = "control,training",
) -> None:
    """Run a worker with the settings of HEARTH_* variables."""
    from controlplane.config import load_settings
    from launcher.parts import worker_argv

    load_settings()
    become(worker_argv(threads, queues))


@app.command()
def beat() -> None:
    """Run the periodic sweep; one for the whole platform is enough, and two do no harm."""
    from controlplane.config import load_settings
    from launcher.parts import beat_argv

    load_settings()
    become(beat_argv())


@app.command()
def migrate(
    wait: Annotated[
        bool, typer.Option("--wait", help="Change nothing: wait until another one has done it.")
    ] = False,
) -> None:
    """Bring the database to the newest schema, and make the bucket."""
    from launcher.setup import prepare_stores, wait_for_schema

    if wait:
        wait_for_schema()
    else:
        prepare_stores()


def become(argv: tuple[str, ...]) -> None:
    """Go on as another command, with the same pid: who supervises us then supervises it."""
    sys.stdout.flush()
    os.execv(argv[0], argv)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
