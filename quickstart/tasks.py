"""What the small base model learns from scratch: copying, adding, and calling a few everyday tools.

Every task draws one short exchange from a random generator. The tool of the quickstart's dataset is not among
them, on purpose: that is what fine-tuning teaches.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

Message = tuple[str, str]  # role, content
Task = Callable[[random.Random], list[Message]]

# Sums are the one task small enough to memorize, so some pairs are kept for checking and never trained on.
SMALLEST_TERM, LARGEST_TERM = 10, 49

CITIES = [
    "Oslo", "Lima", "Cairo", "Porto", "Quito", "Dakar", "Kyoto", "Turin", "Bergen", "Hobart", "Malmo",
    "Zagreb",
]  # fmt: skip
PEOPLE = [
    "Ada", "Bruno", "Chloe", "Dmitri", "Esther", "Farid", "Grace", "Hugo", "Imani", "Jonas", "Keiko", "Lucia",
]  # fmt: skip
ROOMS = ["kitchen", "office", "hallway", "garage", "bedroom", "lobby"]
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy"]
EXPENSES = {
    "travel": [
        "a taxi",
        "the train ticket",
        "two nights in a hotel",
        "a flight to Oslo",
        "the parking garage",
    ],
    "meals": ["lunch with the team", "coffee for guests", "a dinner", "cake and tea", "sandwiches"],
    "office": ["printer paper", "a new desk", "pens and folders", "an office chair", "a desk lamp"],
    "training": ["a course in Spanish", "two books", "the spring conference", "an online class", "exam fees"],
}
COMPLAINTS = {
    "dentist": ["my tooth hurts", "a filling fell out", "my gums are sore", "I need my teeth cleaned"],
    "optician": ["everything far away looks blurred", "I broke my glasses", "reading tires my eyes"],
    "surgery": ["I have a fever", "my throat is sore", "the cough will not stop", "I feel dizzy"],
    "therapist": ["my back is stiff", "I twisted my ankle", "my shoulder aches", "my knee gives way"],
    "pharmacy": ["I ran out of my pills", "I need something for hay fever", "the plasters are used up"],
}
SYSTEM_PROMPTS = ["You are a helpful assistant.", "Answer briefly.", "Use the tools when they help."]
WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()


def is_held_out_sum(left: int, right: int) -> bool:
    """About one pair in thirteen, spread over all digits."""
    return (left * 31 + right * 17) % 13 == 0


def draw_sum(rng: random.Random, held_out: bool = False) -> list[Message]:
    while True:
        left, right = (rng.randint(SMALLEST_TERM, LARGEST_TERM) for _ in range(2))
        if is_held_out_sum(left, right) == held_out:
            break
    question = rng.choice([f"What is {left} + {right}?", f"Add {left} and {right}."])
    return [("user", question), ("assistant", str(left + right))]


def draw_words(rng: random.Random) -> list[Message]:
    text = _phrase(rng, 1, 6)
    return [("user", f"Repeat: {text}"), ("assistant", text)]


def draw_letters(rng: random.Random) -> list[Message]:
    text = " ".join(_made_up_word(rng) for _ in range(rng.randint(1, 2)))
    return [("user", f"Repeat: {text}"), ("assistant", text)]


def draw_weather(rng: random.Random) -> list[Message]:
    city = rng.choice([rng.choice(CITIES), _made_up_word(rng).capitalize()])
    question = rng.choice([f"What is the weather in {city}?", f"How is the weather in {city} today?"])
    exchange = [("user", question), ("assistant", tool_call("get_weather", city=city))]
    if rng.random() < 0.4:
        degrees, sky = rng.randint(0, 39), rng.choice(SKIES)
        exchange.append(("tool", json.dumps({"degrees": degrees, "sky": sky})))
        exchange.append(("assistant", f"It is {degrees} degrees and {sky} in {city}."))
    return exchange


def draw_timer(rng: random.Random) -> list[Message]:
    amount, unit = rng.randint(1, 99), rng.choice(["minutes", "hours"])
    question = rng.choice([f"Set a timer for {amount} {unit}.", f"Wake me in {amount} {unit}, please."])
    return [("user", question), ("assistant", tool_call("set_timer", amount=amount, unit=unit))]


def draw_message(rng: random.Random) -> list[Message]:
    person, text = rng.choice([rng.choice(PEOPLE), _made_up_word(rng).capitalize()]), _phrase(rng, 2, 5)
    question = rng.choice([f"Tell {person}: {text}", f"Send a message to {person}: {text}"])
    return [("user", question), ("assistant", tool_call("send_message", to=person, text=text))]


def draw_lights(rng: random.Random) -> list[Message]:
    room, state = rng.choice(ROOMS), rng.choice(["on", "off"])
    question = rng.choice(
        [f"Turn {state} the lights in the {room}.", f"Lights {state} in the {room}, please."]
    )
    return [("user", question), ("assistant", tool_call("set_lights", room=room, state=state))]


def draw_order(rng: random.Random) -> list[Message]:
    number = rng.randint(1000, 99999)
    question = rng.choice(
        [f"Where is order {number}?", f"Has order {number} been sent?", f"Look up order {number}."]
    )
    return [("user", question), ("assistant", tool_call("find_order", order=number))]


def draw_expense(rng: random.Random) -> list[Message]:
    amount, category = rng.randint(1, 999), rng.choice(list(EXPENSES))
    item = rng.choice(EXPENSES[category])
    question = rng.choice([f"Log {amount} for {item}.", f"I paid {amount} for {item}."])
    return [("user", question), ("assistant", tool_call("log_expense", amount=amount, category=category))]


def draw_visit(rng: random.Random) -> list[Message]:
    person, day, kind = rng.choice(PEOPLE), rng.randint(1, 31), rng.choice(list(COMPLAINTS))
    question = f"{person} here, {rng.choice(COMPLAINTS[kind])}. Is day {day} free?"
    return [("user", question), ("assistant", tool_call("book_visit", to=kind, name=person, day=day))]


def draw_named_tool(rng: random.Random) -> list[Message]:
    """A tool spelled out in the question, so that the form of a call is learned apart from any one tool."""
    name = "_".join(rng.choice(WORDS) for _ in range(rng.randint(1, 2)))
    keys = rng.sample(WORDS, rng.randint(1, 4))
    arguments = {
        key: rng.choice([rng.randint(0, 99999), _phrase(rng, 1, 2), _made_up_word(rng)]) for key in keys
    }
    described = ", ".join(f"{key} {value}" for key, value in arguments.items())
    return [("user", f"Call {name} with {described}."), ("assistant", tool_call(name, **arguments))]


TASKS: dict[str, Task] = {
    "sum": draw_sum,
    "words": draw_words,
    "letters": draw_letters,
    "get_weather": draw_weather,
    "set_timer": draw_timer,
    "send_message": draw_message,
    "set_lights": draw_lights,
    "find_order": draw_order,
    "log_expense": draw_expense,
    "book_visit": draw_visit,
    "named_tool": draw_named_tool,
}
# What takes the most practice.
WEIGHTS = {"sum": 14, "words": 3, "letters": 3, "named_tool": 6}


def draw_exchange(rng: random.Random) -> list[Message]:
    name = rng.choices(list(TASKS), [WEIGHTS.get(name, 1) for name in TASKS])[0]
    return TASKS[name](rng)


def tool_call(name: str, /, **parameters: object) -> str:
    """The form that engines read with their `llama3_json` tool parser."""
    return json.dumps({"name": name, "parameters": parameters})


def _phrase(rng: random.Random, shortest: int, longest: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(shortest, longest)))


def _made_up_word(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7)))
