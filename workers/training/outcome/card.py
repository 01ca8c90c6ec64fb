"""The adapter's model card: what it was made of, how, and what is known of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from controlplane.content_hash import content_sha256
from workers.training.config import JobSpec, Source
from workers.training.examples.rows import CLASSIFICATION_INPUT
from workers.training.job import Job

CARD = "README.md"
PACKAGES = (
    *("hearth", "torch", "transformers", "tokenizers", "datasets", "peft", "trl", "accelerate"),
    "bitsandbytes",
)
SETTINGS = (
    "kind",
    "epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "batch_size",
    "batch_tokens",
    "lora_rank",
    "alpha",
    "lora_dropout",
    "cutoff_length",
    "quantize_base",
    "processes",
    "early_stop",
    "seed",
)
SCORES = {
    "loss": "loss",
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "margin": "margin",
}


def write_card(folder: Path, job: Job, step: int | None = None) -> str:
    """Write the card beside the adapter, and return its name. `step`: of an adapter from the way there."""
    modules = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    (folder / CARD).write_text(render_card(job, modules, step), encoding="utf-8")
    return CARD


def render_card(job: Job, modules: Sequence[str], step: int | None = None) -> str:
    """Only what is the same in every run of the job: no times, no speeds, no places.

    `modules`: the layers that are adapted.
    """
    parts = [_front(job.spec), _opening(job, step), _data(job), _settings(job, modules)]
    if step is None:
        parts.append(_evaluation(job.report.evaluation))
    return "\n".join([*parts, _versions(job.spec), _limits(job)])


def _front(spec: JobSpec) -> str:
    return (
        f"---\nbase_model: {spec.base_model.name}\nlibrary_name: peft\n"
        "pipeline_tag: text-generation\ntags:\n- lora\n- hearth\n---\n"
    )


def _opening(job: Job, step: int | None) -> str:
    where = f"as it was after step {step} of {job.report.steps}" if step else f"of {job.report.steps} steps"
    return f"# A LoRA adapter of {job.spec.base_model.name}\n\nMade by {job.spec.job_name}, {where}.\n"


def _data(job: Job) -> str:
    spec, report = job.spec, job.report
    rows = [("trained on", *_source(spec.datasets[0]))]
    if spec.evaluation_dataset:
        rows.append(("evaluated on", *_source(spec.evaluation_dataset)))
    counted = (
        f"{report.rows_trained} rows were trained on, {report.rows_evaluated} were held out, "
        f"{report.rows_dropped} had nothing to train, {report.truncated_rows} were cut. One pass has "
        f"{report.tokens} tokens, {report.trained_tokens} of which count in the loss.\n"
    )
    return f"## Data\n\n{_table(('', 'dataset', 'SHA-256'), rows)}\n{counted}"


def _settings(job: Job, modules: Sequence[str]) -> str:
    spec = job.spec
    rows = [(name.replace("_", " "), _shown(getattr(spec, name))) for name in SETTINGS]
    rows.append(("modules", ", ".join(sorted(modules))))
    if spec.input_template is None:
        rows.append(("chat template", _template(job)))
    if spec.evaluates and not spec.evaluation_dataset and job.report.rows_evaluated:
        rows.append(("evaluation split", _shown(spec.evaluation_split)))
    if preference := spec.preference:
        strengths = {"dpo": ("beta", preference.beta), "orpo": ("lambda", preference.odds_weight)}
        name, value = strengths[preference.method]
        rows += [("method", preference.method), (name, _shown(value))]
    packs = "A batch counts packs of rows.\n" if spec.batch_tokens else ""
    return f"## Settings\n\n{_table(('setting', 'value'), rows)}{packs}"


def _template(job: Job) -> str:
    if job.spec.jinja_template is not None:
        return "of its own, in `fireworks.json`"
    generic = any(finding["code"] == "GENERIC_TEMPLATE" for finding in job.report.findings)
    return "the generic one" if generic else "the base model's"


def _evaluation(found: Mapping[str, Any]) -> str:
    if not found:
        return "## Evaluation\n\nNo rows were held out, and nothing was measured.\n"
    before, after = found.get("before") or {}, found["after"]
    rows = [
        (word, _number(before.get(name)), _number(after.get(name)))
        for name, word in SCORES.items()
        if name in after
    ]
    return f"## Evaluation\n\nOn held-out rows.\n\n{_table(('', 'before', 'after'), rows)}"


def _versions(spec: JobSpec) -> str:
    started = [("base model", *_source(spec.base_model))]
    if spec.warm_start:
        started.append(("went on from", *_source(spec.warm_start)))
    used = [name for name in PACKAGES if name != "bitsandbytes" or spec.quantize_base]
    packages = [(name, installed(name)) for name in used] + [("python", platform.python_version())]
    return (
        f"## Versions\n\n{_table(('', 'model', 'SHA-256'), started)}\n"
        f"{_table(('package', 'version'), packages)}"
    )


def _limits(job: Job) -> str:
    lines = [
        "## Licence and limits\n",
        "The adapter is of no use without its base model. What the base model's licence asks, and what its "
        "makers advise against, holds for the adapter too; so do the terms under which the data was given.\n",
        f"It was trained on rows of at most {job.spec.cutoff_length} tokens, and was measured on no more "
        "than this card says.\n",
    ]
    if job.spec.kind == "text_classification":
        prompt = CLASSIFICATION_INPUT.replace("\n", "\\n")
        lines.append(f"It answers with a label when it is asked for a completion of `{prompt}`.\n")
    return "\n".join(lines + [f"- {warning}" for warning in job.report.warnings]) + "\n"


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from its source"


def _source(source: Source) -> tuple[str, str]:
    found = content_sha256({file.name: file.sha256 for file in source.files})
    return source.name, f"`{found}`" if found else "not known"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
