"""Completion of commands, flags and resource ids in a shell."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.connection.session import Session
from cli.language.registry import command


class Shell(StrEnum):
    """Shells that firectl completes in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command("completion", example="firectl completion bash", see_also=("help",))
def completion(
    session: Session, shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]
) -> None:
    """Print the script that completes commands, flags and the ids of resources in a shell.

    Put one of these into the shell's start-up file:

      eval "$(firectl completion bash)"   # ~/.bashrc
      eval "$(firectl completion zsh)"    # ~/.zshrc, after compinit
      firectl completion fish | source    # ~/.config/fish/config.fish
    """
    from cli.language.completion import script

    session.output.stdout.write(script(shell.value))
