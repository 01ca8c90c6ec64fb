"""Which of the collections holds a job that is given by its id."""

from cli.connection.session import Session
from cli.errors import ApiError, CliError
from cli.resources import JOBS


def kind_of(session: Session, id: str) -> str:
    for noun in JOBS:
        try:
            session.client.look(session.name(noun, id))
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            return noun
    raise CliError(f'there is no fine-tuning job "{id}"', advice=[f"firectl list {noun}s" for noun in JOBS])


def job_name(session: Session, given: str) -> str:
    """The full name of a job given by id or name."""
    return given if given.startswith("accounts/") else session.name(kind_of(session, given), given)
