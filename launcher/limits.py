"""`hearth admin set-quota` and `hearth admin reservations`: what the operator allows, and sets apart."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.database import in_session

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

reservations = typer.Typer(
    help="GPUs that are set apart for an account: used first, and priced apart.", no_args_is_help=True
)

AccountArgument = Annotated[str, typer.Argument(help="Id of the account.")]
TimeOption = Annotated[
    str, typer.Option(help="As 2030-01-31 or 2030-01-31T12:00:00Z; in UTC unless it says.")
]


def set_quota(
    account: AccountArgument,
    quota: Annotated[str, typer.Argument(help="Id of the quota, such as h100-count.")],
    max_value: Annotated[int, typer.Argument(metavar="MAX", help="The most its admin may set it to.")],
    value: Annotated[
        int | None, typer.Option(help="What it is set to now; otherwise that is left to the account's admin.")
    ] = None,
) -> None:
    """Allow one account more or less of something than the platform's default."""
    from controlplane.resources.quotas.updates import set_max_value

    in_session(lambda session: set_max_value(session, account, quota, max_value, value))


@reservations.command("create")
def create_reservation_command(
    account: AccountArgument,
    accelerator_type: Annotated[str, typer.Option(help="Such as NVIDIA_H100_80GB.")],
    count: Annotated[int, typer.Option(help="How many GPUs.")],
    reservation_id: Annotated[str, typer.Option("--id", help="A random one unless given.")] = "",
    display_name: Annotated[str, typer.Option(help="What it is called in lists.")] = "",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    region: Annotated[str, typer.Option(help="Where; at most one of this and --multi-region.")] = "",
    multi_region: Annotated[str, typer.Option(help="Where.")] = "",
    start_time: TimeOption = "",
    end_time: TimeOption = "",
) -> None:
    """Reserve GPUs, from the next midnight in UTC and for a year unless times are given; print the name."""
    from controlplane.resources.reservations.service import WantedReservation, create_reservation

    wanted = WantedReservation(
        account_id=account,
        accelerator_type=accelerator_type,
        reserved_count=count,
        id=reservation_id,
        display_name=display_name,
        description=description,
        region=region,
        multi_region=multi_region,
        start_time=read_time(start_time, "--start-time"),
        end_time=read_time(end_time, "--end-time"),
    )
    name = in_session(lambda session: create_reservation(session, wanted, "operator").name)
    sys.stdout.write(f"{name}\n")


@reservations.command("list")
def list_reservations(account: AccountArgument) -> None:
    """Print an account's reservations, one a line."""
    from sqlalchemy import select

    from controlplane.resources.tables import ReservationRow

    def read(session: Session) -> list[str]:
        query = select(ReservationRow).where(ReservationRow.account_id == account).order_by(ReservationRow.id)
        return [
            f"{row.name} {row.reserved_count} {row.accelerator_type} "
            f"{shown_time(row.start_time)} {shown_time(row.end_time)}"
            for row in session.scalars(query)
        ]

    for line in in_session(read):
        sys.stdout.write(f"{line}\n")


@reservations.command("end")
def end_reservation(
    account: AccountArgument, reservation: Annotated[str, typer.Argument(help="Id of the reservation.")]
) -> None:
    """End a reservation now. It stays listed, as EXPIRED: what it covered is in the ledger."""
    from controlplane.resources.reservations.service import end_now

    in_session(lambda session: end_now(session, account, reservation))


def shown_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def read_time(text: str, option: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("must be a time such as 2030-01-31T12:00:00Z", param_hint=option) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
