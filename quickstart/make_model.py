"""Make the quickstart's base model from nothing: a tokenizer, a small Llama, some minutes on two cores.

    python -m quickstart.make_model [--out quickstart/model] [--steps 1400] [--seed 7]

The same seed and number of threads on the same machine give the same weights. The model is tiny on purpose;
it is a real Llama in the usual file layout, so what works with it works with a large one.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from quickstart.tasks import SYSTEM_PROMPTS, TASKS, Message, Task, draw_exchange, draw_sum

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = {role: f"<|{role}|>" for role in ("system", "user", "assistant", "tool")}
# Never written: engines' `llama3_json` tool parser only starts when the vocabulary has it.
PYTHON_TAG = "<|python_tag|>"
SPECIAL_TOKENS = [BOS, END, PAD, *ROLES.values(), PYTHON_TAG]
VOCABULARY_SIZE = 512
CONTEXT_LENGTH = 1024
SEQUENCE_LENGTH = 128
BATCH_SIZE = 32
# Prompts are noise to a model this small; a little weight still teaches it their shape.
PROMPT_WEIGHT = 0.1
# The share of sequences that copy random tokens. They alone reach every row of the vocabulary: rows never
# seen would collapse together (input and output embeddings are tied), and no fine-tuning could part them.
NOISE_SHARE = 0.15
SYSTEM_PROMPT_SHARE = 0.15

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|' + message['role'] + '|>' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- message['content'] or '' }}
{%- for call in message['tool_calls'] or [] %}
{{- '{"name": "' + call['function']['name'] + '", "parameters": ' }}
{{- call['function']['arguments'] | tojson }}{{ '}' }}
{%- endfor %}
{{- '<|end|>' }}
{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the quickstart's base model from nothing.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="other counts give slightly other weights")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    tokenizer = train_tokenizer(random.Random(arguments.seed))
    model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens")
    pretrain(model, tokenizer, arguments.steps, random.Random(arguments.seed + 1))
    model = model.to(torch.bfloat16)
    for name, share in check(model, tokenizer, random.Random(arguments.seed + 2)).items():
        print(f"exact match on fresh {name}: {share:.3f}")
    save(model, tokenizer, arguments.out)


def train_tokenizer(rng: random.Random) -> Tokenizer:
    """Byte-level BPE: any text can be written; digits stay single so that sums can be learned."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = (content for _ in range(20_000) for _, content in draw_exchange(rng))
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, special_id(BOS))]
    )
    return tokenizer


def build_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        initializer_range=0.06,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=special_id(BOS),
        eos_token_id=special_id(END),
        pad_token_id=special_id(PAD),
    )
    return LlamaForCausalLM(config)


def pretrain(model: LlamaForCausalLM, tokenizer: Tokenizer, steps: int, rng: random.Random) -> None:
    optimizers = build_optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, steps=steps))
        for optimizer in optimizers
    ]
    started = time.monotonic()
    model.train()
    for step in range(1, steps + 1):
        ids, weights = draw_batch(tokenizer, rng)
        loss = weighted_loss(model(input_ids=ids, use_cache=False).logits, ids, weights)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepped in (*optimizers, *schedules):
            stepped.step()
        if step % 50 == 0 or step == steps:
            elapsed = time.monotonic() - started
            print(f"step {step}/{steps}  loss {loss.item():.4f}  {elapsed:.0f} s", flush=True)


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers: copying is learned in half the steps. AdamW for the rest."""
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(step: int, steps: int) -> float:
    """Up over 30 steps, level, then down to nothing over the last 60 %."""
    return min(1.0, (step + 1) / 30, (steps - step) / (0.6 * steps))


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Next-token loss; `weights` (batch, length) says how much each token counts as a target."""
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    counted = weights[:, 1:].flatten()
    return (each * counted).sum() / counted.sum()


def draw_batch(tokenizer: Tokenizer, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their weights in the loss, both (BATCH_SIZE, SEQUENCE_LENGTH), never padded."""
    rows = [list(islice(draw_conversation(tokenizer, rng), SEQUENCE_LENGTH)) for _ in range(BATCH_SIZE)]
    ids = torch.tensor([[token for token, _ in row] for row in rows])
    weights = torch.tensor([[weight for _, weight in row] for row in rows])
    return ids, weights


def draw_conversation(tokenizer: Tokenizer, rng: random.Random) -> Iterator[tuple[int, float]]:
    """The tokens, each with its weight, of an endless conversation: one short exchange after another."""
    yield special_id(BOS), PROMPT_WEIGHT
    if rng.random() < NOISE_SHARE:
        while True:
            noise = [rng.randrange(len(SPECIAL_TOKENS), VOCABULARY_SIZE) for _ in range(rng.randint(3, 12))]
            yield from mark_message("user", noise)
            yield from mark_message("assistant", noise)
    if rng.random() < SYSTEM_PROMPT_SHARE:
        yield from mark_message("system", token_ids(tokenizer, rng.choice(SYSTEM_PROMPTS)))
    while True:
        for role, content in draw_exchange(rng):
            yield from mark_message(role, token_ids(tokenizer, content))


def mark_message(role: str, content: list[int]) -> Iterator[tuple[int, float]]:
    """One message as the chat template renders it; what the assistant writes, with its end, weighs 1."""
    weight = 1.0 if role == "assistant" else PROMPT_WEIGHT
    yield special_id(ROLES[role]), PROMPT_WEIGHT
    for token in content:
        yield token, weight
    yield special_id(END), weight


def special_id(token: str) -> int:
    """Special tokens are numbered first, in their order."""
    return SPECIAL_TOKENS.index(token)


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def check(
    model: LlamaForCausalLM, tokenizer: Tokenizer, rng: random.Random, count: int = 100
) -> dict[str, float]:
    """The share of fresh questions of each task answered exactly; the sums are ones never trained on."""
    draws: dict[str, Task] = {**TASKS, "sum": partial(draw_sum, held_out=True)}
    model.eval()
    return {
        name: sum(_answers_exactly(model, tokenizer, draw(rng)) for _ in range(count)) / count
        for name, draw in draws.items()
    }


def _answers_exactly(model: LlamaForCausalLM, tokenizer: Tokenizer, exchange: list[Message]) -> bool:
    """Whether the last message of the exchange is what greedy decoding writes after the ones before it."""
    *asked, (_, expected) = exchange
    prompt = [special_id(BOS)]
    for role, content in asked:
        prompt += [token for token, _ in mark_message(role, token_ids(tokenizer, content))]
    prompt.append(special_id(ROLES["assistant"]))
    wanted = [*token_ids(tokenizer, expected), special_id(END)]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + wanted])).logits[0]
    # Greedy decoding writes `wanted` exactly when each of its tokens is the likeliest after those before it.
    return logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist() == wanted


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    end, pad, bos = (special_id(token) for token in (END, PAD, BOS))
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=end, pad_token_id=pad)
    model.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
