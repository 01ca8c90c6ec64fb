"""The quickstart ships a model, data and settings made by scripts: they must go on fitting each other.

Nothing here loads the model; its shapes are read from the header of the weights file.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from quickstart import make_data

QUICKSTART = Path(make_data.__file__).parent
MODEL = QUICKSTART / "model"
ANSWER_TOKEN_LIMIT = 128  # what quickstart/compare.py asks for


def load_json(name: str) -> dict[str, Any]:
    return json.loads((MODEL / name).read_text())


def load_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (QUICKSTART / "data" / name).read_text().splitlines()]


def prompt_of(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]


def call_of(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["messages"][1]["content"])


TRAIN, HELD_OUT = load_rows("train.jsonl"), load_rows("heldout.jsonl")
CONFIG, TOKENIZER_CONFIG = load_json("config.json"), load_json("tokenizer_config.json")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def render(messages: list[dict[str, Any]], *, ask: bool = False) -> tuple[str, list[list[int]]]:
    """The text of a conversation, and the (start, end) spans of it that the assistant wrote."""
    texts, spans = render_jinja_template(
        [messages],
        chat_template=TOKENIZER_CONFIG["chat_template"],
        add_generation_prompt=ask,
        return_assistant_tokens_mask=True,
        bos_token=TOKENIZER_CONFIG["bos_token"],
    )
    return texts[0], spans[0]


def shapes_in_weights() -> dict[str, tuple[str, list[int]]]:
    """Name → (type, shape), from the header of the safetensors file."""
    with (MODEL / "model.safetensors").open("rb") as weights:
        (length,) = struct.unpack("<Q", weights.read(8))
        header = json.loads(weights.read(length))
    return {
        name: (entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"
    }


def shapes_of_config() -> dict[str, list[int]]:
    """What a Llama of this configuration consists of; input and output embeddings are one."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shared = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.k_proj": [shared, hidden],
        "self_attn.v_proj": [shared, hidden],
        "self_attn.o_proj": [hidden, hidden],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    shapes = {"model.embed_tokens.weight": [CONFIG["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for number in range(CONFIG["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def test_the_weights_are_the_model_that_the_config_describes() -> None:
    found = shapes_in_weights()

    assert {name: shape for name, (_, shape) in found.items()} == shapes_of_config()
    assert {dtype for dtype, _ in found.values()} == {"BF16"}
    assert sum(math.prod(shape) for _, shape in found.values()) == 853_120


def test_the_config_loads_as_a_plain_llama_without_remote_code() -> None:
    assert CONFIG["architectures"] == ["LlamaForCausalLM"]
    assert CONFIG["tie_word_embeddings"] is True
    assert not {"auto_map", "quantization_config"} & CONFIG.keys()


def test_the_vocabulary_fills_the_embedding(tokenizer: Tokenizer) -> None:
    assert sorted(tokenizer.get_vocab().values()) == list(range(CONFIG["vocab_size"]))


def test_generation_stops_at_the_end_of_the_assistants_turn(tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id(TOKENIZER_CONFIG["eos_token"])

    assert CONFIG["eos_token_id"] == load_json("generation_config.json")["eos_token_id"] == end
    text, [[_, stop]] = render(TRAIN[0]["messages"])
    assert tokenizer.encode(text[:stop], add_special_tokens=False).ids[-1] == end


@pytest.mark.parametrize("text", ["3 + 4 = 7", "naïve café, 東京 🔥", '{"a": [1, "b\\n"]}\n\ttail  '])
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_every_row_survives_the_tokenizer_and_fits_the_context(tokenizer: Tokenizer) -> None:
    for row in TRAIN + HELD_OUT:
        text, _ = render(row["messages"])
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert len(ids) < CONFIG["max_position_embeddings"]


def test_every_answer_fits_what_the_quickstart_asks_for(tokenizer: Tokenizer) -> None:
    answers = [row["messages"][1]["content"] for row in TRAIN + HELD_OUT]

    assert max(len(encoding.ids) for encoding in tokenizer.encode_batch(answers)) < ANSWER_TOKEN_LIMIT


def test_the_template_trains_on_the_answer_and_its_end_and_on_nothing_else() -> None:
    for row in TRAIN:
        text, [[start, stop]] = render(row["messages"])
        assert text[start:stop] == row["messages"][1]["content"] + TOKENIZER_CONFIG["eos_token"]


def test_training_and_asking_see_the_same_prompt() -> None:
    for row in HELD_OUT:
        whole, [[start, _]] = render(row["messages"])
        asked, _ = render(row["messages"][:1], ask=True)
        assert asked == whole[:start]


def test_the_template_renders_a_tool_call_as_the_model_writes_one() -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    text, _ = render(
        [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "How is the weather in Oslo today?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": '{"degrees": 4, "sky": "windy"}'},
        ],
        ask=True,
    )

    assert text == (
        "<|bos|><|system|>Answer briefly.<|end|><|user|>How is the weather in Oslo today?<|end|>"
        '<|assistant|>{"name": "get_weather", "parameters": {"city": "Oslo"}}<|end|>'
        '<|tool|>{"degrees": 4, "sky": "windy"}<|end|><|assistant|>'
    )


def test_there_are_as_many_rows_as_the_quickstart_says() -> None:
    assert (len(TRAIN), len(HELD_OUT)) == (256, 40)


def test_every_row_is_one_question_and_one_call_of_the_new_tool() -> None:
    for row in TRAIN + HELD_OUT:
        assert list(row) == ["messages"]
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        call = call_of(row)
        assert call["name"] == "route_ticket"
        assert list(call["parameters"]) == ["ticket", "customer", "queue", "priority"]
        ticket = "New ticket {ticket}, customer {customer}, queue {queue}, priority {priority}: "
        assert prompt_of(row).startswith(ticket.format_map(call["parameters"]))


def test_no_held_out_ticket_is_in_the_training_set() -> None:
    def tickets(rows: list[dict[str, Any]]) -> set[int]:
        return {call_of(row)["parameters"]["ticket"] for row in rows}

    def cases(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
        return {(call_of(row)["parameters"]["customer"], prompt_of(row).partition(": ")[2]) for row in rows}

    assert len(tickets(TRAIN)) == len(TRAIN)
    assert len(tickets(HELD_OUT)) == len(HELD_OUT)
    assert not tickets(TRAIN) & tickets(HELD_OUT)
    assert not cases(TRAIN) & cases(HELD_OUT)


def test_training_shows_every_queue_and_priority_that_is_asked_for() -> None:
    for key in ("customer", "queue", "priority"):
        trained = {call_of(row)["parameters"][key] for row in TRAIN}
        assert {call_of(row)["parameters"][key] for row in HELD_OUT} <= trained


def test_the_base_model_was_never_shown_the_new_tool() -> None:
    assert "route_ticket" not in (QUICKSTART / "tasks.py").read_text().partition('"""\n')[2]


def test_the_script_writes_the_shipped_data_again(tmp_path: Path) -> None:
    make_data.write_dataset(tmp_path, seed=7)

    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (QUICKSTART / "data" / name).read_bytes()


def test_the_job_settings_are_the_ones_that_were_measured() -> None:
    settings = yaml.safe_load((QUICKSTART / "job.yaml").read_text())

    assert settings == {
        "dataset": "tickets",
        "base_model": "accounts/hearth/models/ember",
        "model_id": "ember-tickets",
        "job_id": "ember-tickets",
        "conversation": {},
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 0.005,
        "lr_scheduler_type": "cosine",
        "lora_rank": 16,
        "lora_alpha": 32,
    }
