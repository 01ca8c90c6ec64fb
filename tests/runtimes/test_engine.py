"""The local runtime with the real engine, the real object store, and a tiny model of random weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from controlplane.config import Settings
from controlplane.storage import ObjectStore
from launcher.embedded import Services
from workers.runtimes.architectures import FILE, read_registry
from workers.runtimes.base import (
    AdapterRefused,
    AdapterSource,
    EnginePhase,
    ModelFile,
    ModelSource,
    ProcessState,
    ReplicaObservation,
    ReplicaSpec,
)
from workers.runtimes.local import LocalRuntime
from workers.runtimes.vllm import GPU_ONLY_PRECISIONS, PRECISION_FLAGS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

Alive = Callable[[Path], list[int]]
Until = Callable[..., None]

START_SECONDS = 240.0


def wait_until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def platform(platform_services: Services, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings for a bucket and a data directory that last as long as this module; there is no database."""
    seaweedfs = platform_services.seaweedfs
    settings = Settings(
        database_url="postgresql://none.invalid/none",
        redis_url="redis://none.invalid",
        s3_endpoint=seaweedfs.endpoint,
        s3_access_key=seaweedfs.access_key,
        s3_secret_key=seaweedfs.secret_key,
        s3_bucket=f"engine-{uuid.uuid4().hex[:8]}",
        data_dir=tmp_path_factory.mktemp("node") / "data",
    )
    ObjectStore.from_settings(settings).ensure_bucket()
    return settings


@dataclass(frozen=True)
class World:
    runtime: LocalRuntime
    store: ObjectStore
    model: ModelSource
    data_dir: Path
    folder: Path

    def spec(self, **changes: Any) -> ReplicaSpec:
        endpoint = self.runtime.choose_endpoint()
        uid = uuid.uuid4().hex
        spec = ReplicaSpec(uid, "base-model", self.model, endpoint.host, endpoint.port)
        return replace(spec, **changes)

    def directory(self, spec: ReplicaSpec) -> Path:
        return self.data_dir / "run" / "replicas" / spec.replica_uid

    def upload(self, folder: Path) -> ModelSource:
        uid = uuid.uuid4().hex
        prefix = f"accounts/a/models/{uid}/"
        files = []
        for path in sorted(folder.iterdir()):
            self.store.put_file(prefix + path.name, path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files.append(ModelFile(path.name, path.stat().st_size, digest))
        return ModelSource(uid, prefix, tuple(files))

    def until_ended(self, spec: ReplicaSpec) -> ReplicaObservation:
        over = {ProcessState.EXITED, ProcessState.LOST}
        wait_until(lambda: self.runtime.observe_replica(spec.replica_uid).state in over)
        return self.runtime.observe_replica(spec.replica_uid)

    def adapter(self, name: str, scale: float, rank: int = 4) -> AdapterSource:
        folder = self.folder / name
        make_adapter(folder, scale, rank)
        return AdapterSource(name, self.upload(folder))


@pytest.fixture(scope="module")
def world(platform: Settings, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("weights")
    make_model(folder / "model")
    bare = World(
        LocalRuntime(platform),
        ObjectStore.from_settings(platform),
        ModelSource("", "", ()),
        platform.data_dir,
        folder,
    )
    return replace(bare, model=bare.upload(folder / "model"))


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[ReplicaSpec]:
    """One engine with addons, for all tests that only ask it something."""
    spec = world.spec(enable_adapters=True, max_loras=32, chat_template="{{ messages[0]['content'] }} ->")
    world.runtime.start_replica(spec)
    world.runtime.start_replica(spec)

    def up() -> bool:
        seen = world.runtime.observe_replica(spec.replica_uid)
        assert seen.state is ProcessState.RUNNING, seen
        assert seen.healthy == (seen.phase is EnginePhase.SERVING)
        return seen.healthy

    try:
        wait_until(up)
        yield spec
    finally:
        world.runtime.stop_replica(spec.replica_uid)
        world.until_ended(spec)


def complete(spec: ReplicaSpec, model: str, prompt: str = "ab") -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0}
    answer = httpx.post(f"http://{spec.host}:{spec.port}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def test_an_engine_serves_completions_and_chats_with_the_given_template(
    world: World, served: ReplicaSpec
) -> None:
    assert complete(served, "base-model")
    world.runtime.prove_base(served.replica_uid)
    body = {"model": "base-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    answer = httpx.post(f"http://{served.host}:{served.port}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] == len("hi ->")


def test_it_runs_as_two_processes_and_keeps_its_secrets_to_itself(
    world: World, served: ReplicaSpec, alive: Alive
) -> None:
    engines = [pid for pid in alive(world.directory(served)) if "HEARTH_S3" in _environment(pid)]
    assert engines == []
    names = [Path(f"/proc/{pid}/cmdline").read_text() for pid in alive(world.directory(served))]
    assert sum("cpu_server" in name or "VLLM::" in name for name in names) == 2


def _environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text(errors="replace")


def test_an_adapter_is_loaded_proven_and_unloaded(world: World, served: ReplicaSpec) -> None:
    runtime, uid = world.runtime, served.replica_uid
    adapter = world.adapter("loud", scale=0.5)
    runtime.load_adapter(uid, adapter)
    runtime.load_adapter(uid, adapter)
    assert runtime.list_adapters(uid) == {"loud"}
    assert runtime.prove_adapter(uid, "loud")
    assert complete(served, "loud") != complete(served, "base-model")
    runtime.unload_adapter(uid, "loud")
    runtime.unload_adapter(uid, "loud")
    assert runtime.list_adapters(uid) == frozenset()


def test_a_faint_adapter_is_proven_and_one_that_changes_nothing_is_not(
    world: World, served: ReplicaSpec
) -> None:
    for name, scale in (("faint", 0.01), ("silent", 0.0)):
        world.runtime.load_adapter(served.replica_uid, world.adapter(name, scale))
    assert world.runtime.prove_adapter(served.replica_uid, "faint")
    assert not world.runtime.prove_adapter(served.replica_uid, "silent")


def test_an_adapter_of_too_high_a_rank_is_refused_with_the_engines_reason(
    world: World, served: ReplicaSpec
) -> None:
    with pytest.raises(AdapterRefused, match="rank"):
        world.runtime.load_adapter(served.replica_uid, world.adapter("wide", 0.5, rank=128))
    assert "wide" not in world.runtime.list_adapters(served.replica_uid)


def test_it_writes_only_below_its_data_directory(world: World, served: ReplicaSpec) -> None:
    written = set()
    for pid in _engine_pids(world.directory(served)):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("/") and not target.startswith(("/dev/", "/proc/", "/sys/")):
                flags = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split("flags:")[1].split()[0]
                if int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
                    written.add(target)
    assert all(target.startswith(str(world.data_dir)) for target in written), written


def _engine_pids(directory: Path) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == directory:
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


REPEATED = "abcabcabcabcab"
GUESSED = [
    {"prompt": REPEATED},
    {"prompt": REPEATED, "logprobs": 2},
    {"prompt": [REPEATED, "xyxyxyxy", "a"]},
    {"prompt": REPEATED, "frequency_penalty": 1.5, "repetition_penalty": 1.2},
    {"prompt": REPEATED, "structured_outputs": {"grammar": 'root ::= ("ab" | "c")+'}, "min_tokens": 30},
]


def test_an_engine_that_guesses_ahead_answers_as_one_that_does_not(
    world: World, served: ReplicaSpec, guessing: ReplicaSpec
) -> None:
    for asked in GUESSED:
        plain, guessed = (answered(spec, **asked) for spec in (served, guessing))
        assert plain.status_code == guessed.status_code == 200, guessed.text
        assert guessed.json()["choices"] == plain.json()["choices"], asked
    liked = answered(guessing, prompt=REPEATED, temperature=1, top_k=1, logprobs=1).json()
    logprobs = liked["choices"][0]["logprobs"]
    # Of several tokens that are as likely any may come.
    assert logprobs["token_logprobs"] == [max(likely.values()) for likely in logprobs["top_logprobs"]]
    assert answered(guessing, prompt="a", temperature=1, top_k=1, max_tokens=2).status_code == 200
    counted = measured(guessing)
    assert counted["drafts"] > 0
    assert 0 < counted["accepted_tokens"] <= counted["draft_tokens"] <= 3 * counted["drafts"]


def test_an_engine_whose_draft_model_guesses_answers_as_one_that_does_not(
    world: World, served: ReplicaSpec
) -> None:
    """Also for an addon: what guesses is not the addon's, and what checks is."""
    make_draft(world.folder / "draft", world.folder / "model")
    draft = world.upload(world.folder / "draft")
    drafting = world.spec(draft=draft, draft_tokens=3, enable_adapters=True)
    world.runtime.start_replica(drafting)
    try:
        wait_until(lambda: world.runtime.observe_replica(drafting.replica_uid).healthy)
        drafted = world.adapter("drafted", scale=0.5)
        for spec in (served, drafting):
            world.runtime.load_adapter(spec.replica_uid, drafted)
        assert world.runtime.prove_adapter(drafting.replica_uid, "drafted")
        for asked in (*GUESSED, {"prompt": "z" * 400}, {"prompt": REPEATED, "model": "drafted"}):
            plain, guessed = (answered(spec, **asked) for spec in (served, drafting))
            assert plain.status_code == guessed.status_code == 200, guessed.text
            assert guessed.json()["choices"] == plain.json()["choices"], asked
        for sampled in ({"top_k": 5}, {"top_p": 0.9, "n": 3}, {"seed": 3, "max_tokens": 1}):
            assert answered(drafting, prompt="ab", temperature=1, **sampled).status_code == 200
        counted = measured(drafting)
        assert 0 < counted["accepted_tokens"] < counted["draft_tokens"] <= 3 * counted["drafts"]
    finally:
        world.runtime.stop_replica(drafting.replica_uid)
        world.until_ended(drafting)


def make_draft(folder: Path, model: Path) -> None:
    """A model that often says what `model` does, and reads only shorter texts."""
    import torch
    from transformers import LlamaForCausalLM

    shutil.copytree(model, folder)
    found = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(3)
    with torch.no_grad():
        for weights in found.parameters():
            weights.add_(torch.randn_like(weights) * weights.std() * 0.08)
    found.config.max_position_embeddings = 256
    found.to(torch.bfloat16).save_pretrained(folder)


REFUSED = [
    ({"min_p": 0.5}, "min_p"),
    ({"logit_bias": {"7": 1}}, "logit_bias"),
    ({"vllm_xargs": {"typical_p": 0.5}}, "typical_p does not go with guessing tokens ahead"),
]


def test_it_refuses_what_it_would_not_follow(guessing: ReplicaSpec) -> None:
    for asked, words in REFUSED:
        refused = answered(guessing, prompt="a", temperature=1, **asked)
        assert refused.status_code == 400, asked
        assert words in refused.text


def answered(spec: ReplicaSpec, **asked: Any) -> httpx.Response:
    fields = {"model": "base-model", "max_tokens": 60, "temperature": 0, "ignore_eos": True, **asked}
    return httpx.post(f"http://{spec.host}:{spec.port}/v1/completions", json=fields, timeout=60)


def measured(spec: ReplicaSpec) -> dict[str, float]:
    """What the engine counts of its guesses."""
    lines = httpx.get(f"http://{spec.host}:{spec.port}/metrics").text
    found = re.findall(r"^vllm:spec_decode_num_(\w+)_total\{[^}]*\} (\S+)", lines, re.MULTILINE)
    return {name: float(number) for name, number in found}


@pytest.fixture(scope="module")
def guessing(world: World) -> Iterator[ReplicaSpec]:
    """A second engine, which guesses ahead; the last of the tests that use it kills it."""
    spec = world.spec(ngram_length=2, draft_tokens=3)
    world.runtime.start_replica(spec)
    try:
        wait_until(lambda: world.runtime.observe_replica(spec.replica_uid).healthy)
        yield spec
    finally:
        if spec.replica_uid in world.runtime.list_replicas():
            world.runtime.stop_replica(spec.replica_uid)
            world.until_ended(spec)


def test_a_second_engine_that_is_killed_says_why_and_leaves_nothing(
    world: World, served: ReplicaSpec, guessing: ReplicaSpec, alive: Alive
) -> None:
    spec = guessing
    os.kill(_main_pid(world.directory(spec)), signal.SIGKILL)
    seen = world.until_ended(spec)
    assert (seen.state, seen.stopped) == (ProcessState.EXITED, False)
    assert seen.failure is not None
    assert (seen.failure.reason, seen.failure.retryable) == ("KILLED", True)
    wait_until(lambda: alive(world.directory(spec)) == [])
    assert world.runtime.remove_replica(spec.replica_uid)
    assert spec.replica_uid not in world.runtime.list_replicas()


def _main_pid(directory: Path) -> int:
    """The command itself: the only one whose parent is the monitor."""
    pids = _engine_pids(directory)
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    return next(pid for pid, parent in parents.items() if parent not in parents)


def test_an_engine_that_cannot_start_names_the_root_cause(world: World, served: ReplicaSpec) -> None:
    broken = replace(world.model, files=tuple(replace(f, sha256="0" * 64) for f in world.model.files))
    causes = {
        "CHECKSUM_MISMATCH": world.spec(model=replace(broken, uid=uuid.uuid4().hex)),
        "UNSUPPORTED_PRECISION": world.spec(precision="FP8"),
        "CONTEXT_TOO_LONG": world.spec(max_model_len=1_000_000),
        "PORT_IN_USE": world.spec(port=served.port),
    }
    for reason, spec in causes.items():
        world.runtime.start_replica(spec)
        seen = world.until_ended(spec)
        assert seen.failure is not None
        assert seen.failure.reason == reason, seen.failure


def test_stop_leaves_no_process(world: World, served: ReplicaSpec, alive: Alive) -> None:
    directory = world.directory(served)
    pids = alive(directory)
    assert len(pids) >= 4
    world.runtime.stop_replica(served.replica_uid)
    seen = world.until_ended(served)
    assert (seen.state, seen.stopped, seen.failure) == (ProcessState.EXITED, True, None)
    assert _engine_pids(directory) == []
    wait_until(lambda: alive(directory) == [])


def test_the_list_of_architectures_is_the_engines_own() -> None:
    assert json.loads(FILE.read_text()) == read_registry()


def test_the_precisions_flags_are_ones_that_the_engine_follows() -> None:
    from vllm.config.cache import CacheDType
    from vllm.config.quantization import ONLINE_QUANT_SHORTHAND_NAMES

    known = {"--quantization": ONLINE_QUANT_SHORTHAND_NAMES, "--kv-cache-dtype": get_args(CacheDType)}
    flags = [PRECISION_FLAGS[precision] for precision in GPU_ONLY_PRECISIONS]
    assert [value for name, value in flags if value not in known[name]] == []


def make_model(folder: Path) -> None:
    """A Llama of two layers with a byte-level tokenizer, random but the same every time."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_adapter(folder: Path, scale: float, rank: int) -> None:
    """A PEFT adapter on the query and value projections; B is zero when `scale` is."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(1)
    tensors = {}
    for layer in range(2):
        for name, width in (("q_proj", 128), ("v_proj", 64)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, 128)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(width, rank) * scale
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
