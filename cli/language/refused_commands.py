"""Commands of the original that have nothing to work on here: known by name, and refused with a reason."""

from collections.abc import Sequence
from dataclasses import dataclass

from cli.errors import CliError


@dataclass(frozen=True)
class Refused:
    """A noun or a command of one word, in all spellings: why it is not here, and what to type instead."""

    words: tuple[str, ...]
    why: str
    instead: tuple[str, ...] = ()


_TUNE = ("firectl create supervised-fine-tuning-job --help",)
_REINFORCEMENT = "jobs learn from examples, not by reinforcement"
_CREDIT = "use is metered, and what it costs is up to whoever runs the server"
_EVALUATOR = "a job is measured on an evaluation dataset"
_USAGE = ("firectl summary billing",)

REFUSED = (
    Refused(("redeem-credit-code",), _CREDIT, _USAGE),
    Refused(("credit-redemption", "credit-redemptions"), _CREDIT, _USAGE),
    Refused(
        ("policy", "policies"),
        "data stays on the machines of whoever runs the server",
    ),
    Refused(("support",), "ask whoever runs the server"),
    Refused(
        ("router", "routers"),
        "the gateway spreads requests over a deployment's replicas by itself",
        ("firectl update deployment ID --max-replica-count N",),
    ),
    Refused(
        ("training-shape", "training-shapes", "ts", "training-shape-version", "training-shape-versions"),
        "a job's settings are its own flags",
        _TUNE,
    ),
    Refused(("evaluator", "evaluators"), _EVALUATOR, _TUNE),
    Refused(("evaluator-revision", "evaluator-revisions"), _EVALUATOR, _TUNE),
    Refused(("evaluation-job", "evaluation-jobs"), _EVALUATOR, _TUNE),
    Refused(
        ("reinforcement-fine-tuning-job", "reinforcement-fine-tuning-jobs", "rftj", "rftjs"),
        _REINFORCEMENT,
        _TUNE,
    ),
    Refused(("rlor-trainer-job", "rlor-trainer-jobs"), _REINFORCEMENT, _TUNE),
    Refused(
        ("batch-inference-job", "batch-inference-jobs", "bij", "bijs"),
        "requests go to a deployment, as many at once as you like",
        ("firectl create deployment MODEL --wait", "firectl chat MODEL"),
    ),
    Refused(
        ("session", "sessions"),
        "a fine-tuning job runs from start to end by itself",
        _TUNE,
    ),
)
_BY_WORD = {word: refused for refused in REFUSED for word in refused.words}


def check(words: Sequence[str]) -> None:
    """Raises when one of the first two words of an unknown command line names such a command."""
    for word in words[:2]:
        if refused := _BY_WORD.get(word):
            raise CliError(f'"{word}" is not available here: {refused.why}', advice=refused.instead)
