"""A tiny model that reads pictures: the sizes and words of the quickstart's, weights by chance."""

import json
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
)

QUICKSTART = Path(__file__).parents[3] / "quickstart" / "model"
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
WORDS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *TILES]
TEMPLATE = """{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content %}{{ part.text if part.type == 'text' else '<image>' }}{% endfor %}
{%- endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
TOKENS_OF_A_TILE = 4
"""A tile of 28 pixels has 16 patches, of which four become a token. A square picture has five tiles."""


def save_eyes(folder: Path) -> None:
    """The files of the model, as transformers writes them."""
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART)
    tokenizer.add_special_tokens({"additional_special_tokens": WORDS})
    tokenizer.chat_template = TEMPLATE
    language = {**json.loads((QUICKSTART / "config.json").read_text()), "vocab_size": len(tokenizer)}
    config = Idefics3Config(
        text_config=LlamaConfig(**language),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=language["pad_token_id"],
        scale_factor=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    Idefics3Processor(pictures, tokenizer, image_seq_len=TOKENS_OF_A_TILE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
