"""A tiny model that listens: the sizes and words of the quickstart's, weights by chance."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

QUICKSTART = Path(__file__).parents[3] / "quickstart" / "model"
WORDS = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TEMPLATE = """{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content -%}
{{ part.text if part.type == 'text' else '<|audio_bos|><|AUDIO|><|audio_eos|>' }}{% endfor %}
{%- endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
RATE = 16_000
TOKENS_A_SECOND = 25
"""A hundredth of a second is a frame, of which four become a token."""


def save_ears(folder: Path) -> None:
    """The files of the model, as transformers writes them."""
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART)
    tokenizer.add_special_tokens({"additional_special_tokens": WORDS})
    tokenizer.chat_template = TEMPLATE
    language = {**json.loads((QUICKSTART / "config.json").read_text()), "vocab_size": len(tokenizer)}
    language |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    config = Qwen2AudioConfig(
        text_config=Qwen2Config(**language),
        audio_config={
            "num_mel_bins": 16,
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        pad_token_id=language["pad_token_id"],
    )
    torch.manual_seed(0)
    Qwen2AudioForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    name_as_published(folder / "model.safetensors")
    sounds = WhisperFeatureExtractor(feature_size=16, sampling_rate=RATE, return_attention_mask=True)
    Qwen2AudioProcessor(sounds, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def name_as_published(file: Path) -> None:
    """transformers gives the language model's weights a name that neither it nor an engine reads again."""
    weights = {name.replace(".model.model.", ".model."): weight for name, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
