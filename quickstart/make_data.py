"""Write the quickstart's dataset: support tickets, and the `route_ticket` call that files each of them.

    python -m quickstart.make_data [--out quickstart/data] [--seed 7]

The tool is a made-up company's own: no base model can know its name or its fields. Held-out tickets share no
number and no pair of customer and problem with the training tickets.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

Case = tuple[str, str, str]  # customer, queue, problem

TRAIN_ROWS, HELD_OUT_ROWS = 256, 40
CUSTOMERS = [
    "Brook", "Cobalt", "Delta", "Dunmore", "Fable", "Jupiter", "Kestrel", "Maple", "Parker", "Rocket",
    "Tandem", "Vesta",
]  # fmt: skip
PROBLEMS = {
    "billing": ["charged twice this month", "the total is wrong", "the refund has not arrived"],
    "login": ["cannot log in", "the reset mail never comes", "needs access for a colleague"],
    "network": ["the VPN drops every hour", "pages load slowly", "no connection since noon"],
    "storage": ["the disk is full", "last night's backup failed", "files are missing"],
    "hardware": ["the laptop does not start", "the printer is jammed", "the screen stays black"],
}
PRIORITIES = ["high", "normal", "low"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the quickstart's dataset.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    write_dataset(arguments.out, arguments.seed)


def write_dataset(directory: Path, seed: int) -> None:
    """Write `train.jsonl` and `heldout.jsonl`; the same seed gives the same bytes."""
    rng = random.Random(seed)
    tickets = _draw_numbers(rng)
    seen, unseen = _split_pairs(rng)
    directory.mkdir(parents=True, exist_ok=True)
    for name, pairs, rows in (("train", seen, TRAIN_ROWS), ("heldout", unseen, HELD_OUT_ROWS)):
        # Dealing the pairs out in turn, shuffled, keeps the queues even.
        dealt = [pairs[index % len(pairs)] for index in range(rows)]
        rng.shuffle(dealt)
        lines = [json.dumps(_row(rng, next(tickets), *pair)) + "\n" for pair in dealt]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _split_pairs(rng: random.Random) -> tuple[list[Case], list[Case]]:
    """The cases for training and the held-out ones, every customer among both about equally often."""
    cases = [(queue, problem) for queue, problems in PROBLEMS.items() for problem in problems]
    by_customer = [[(customer, *case) for case in rng.sample(cases, len(cases))] for customer in CUSTOMERS]
    dealt = [case for turn in zip(*by_customer, strict=True) for case in turn]
    return dealt[HELD_OUT_ROWS:], dealt[:HELD_OUT_ROWS]


def _draw_numbers(rng: random.Random) -> Iterator[int]:
    """Numbers with no digit twice: so small a model loses its place in 6616."""
    numbers = [number for number in range(1000, 10_000) if len(set(str(number))) == 4]
    return iter(rng.sample(numbers, TRAIN_ROWS + HELD_OUT_ROWS))


def _row(rng: random.Random, ticket: int, customer: str, queue: str, problem: str) -> dict[str, object]:
    priority = rng.choice(PRIORITIES)
    prompt = f"New ticket {ticket}, customer {customer}, queue {queue}, priority {priority}: {problem}."
    parameters = {"ticket": ticket, "customer": customer, "queue": queue, "priority": priority}
    call = json.dumps({"name": "route_ticket", "parameters": parameters})
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": call}]}


if __name__ == "__main__":
    main()
