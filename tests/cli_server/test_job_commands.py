"""Models, datasets, deployments and jobs from the command line, against the real app."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from controlplane.db import Database
from controlplane.resources.tables import DatasetRow, FineTuningJobRow, ModelRow
from controlplane.storage import ObjectStore
from tests.cli_server.conftest import User
from tests.controlplane.uploads import MODEL_FILES

HOME = "accounts/hearth"
ROW = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
JOB = ("--base-model", "base", "--dataset", "chats")
READY = {"account_id": "hearth", "state": "READY"}


@pytest.fixture
def model_folder(home: Path) -> Path:
    """A folder with a small base model that passes the check."""
    folder = home / "ember"
    folder.mkdir()
    for name, content in MODEL_FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def rows(home: Path) -> Path:
    """A file with 500 good rows."""
    path = home / "chats.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n" * 500)
    return path


@pytest.fixture
def addon(db: Database, base: ModelRow) -> None:
    """A READY adapter `addon` of the base model `base`."""
    with db.session() as session:
        facts = {"r": 4, "target_modules": ["q_proj"]}
        session.add(ModelRow(**READY, id="addon", kind="HF_PEFT_ADDON", facts=facts, base_model_uid=base.uid))


@pytest.fixture
def chats(db: Database, base: ModelRow) -> None:
    """READY datasets `chats` and `held-out` for jobs of `base`."""
    with db.session() as session:
        for id, tokens in (("chats", 1_500_000), ("held-out", 100)):
            session.add(
                DatasetRow(**READY, id=id, format="CHAT", example_count=100, estimated_token_count=tokens)
            )


@pytest.fixture
def put_job(db: Database) -> Callable[..., FineTuningJobRow]:
    """Brings a job into a state, as workers would."""

    def put(id: str, **values: Any) -> FineTuningJobRow:
        with db.session() as session:
            session.execute(update(FineTuningJobRow).where(FineTuningJobRow.id == id).values(**values))
            return session.scalars(select(FineTuningJobRow).where(FineTuningJobRow.id == id)).one()

    return put


# --- models


@pytest.mark.usefixtures("uploads_worker")
def test_a_models_life(firectl: User, model_folder: Path, home: Path) -> None:
    made = firectl.done("create", "model", "ember", str(model_folder), "--display-name", "Ember")
    assert "State: READY" in made.out
    assert firectl.json("get", "model", "ember")["display_name"] == "Ember"
    assert firectl.json("model", "update", "ember", "--public", "--description", "Small")["public"] is True
    assert firectl.json("update", "model", "ember", "--public=false")["public"] is False
    assert [model["name"] for model in firectl.json("list", "models")] == [f"{HOME}/models/ember"]
    firectl.done("download", "model", "ember", str(home / "got"))
    assert {p.name: p.read_bytes() for p in (home / "got").iterdir()} == MODEL_FILES
    firectl.done("model", "rm", "ember")
    assert firectl.json("models", "ls") == []


@pytest.mark.usefixtures("uploads_worker")
def test_a_model_is_prepared_in_its_own_precision_and_in_no_other(firectl: User, model_folder: Path) -> None:
    precision = firectl.json("create", "model", "ember", str(model_folder))["supported_precisions"][0]
    assert "State: READY" in firectl.done("prepare-model", "ember", "--precision", precision, "--wait").out
    refused = firectl("model", "prepare", "ember", "--precision", "NF4")
    assert refused.code == 1
    assert f"{HOME}/models/ember has {precision}" in refused.err
    mistyped = firectl("prepare-model", "ember", "--precision", "FP-8")
    assert "did you mean FP8" in mistyped.err
    assert f"--precision {precision}" in firectl.done("prepare-model", "ember").err  # its own


NO_SUCH_MODEL = (
    (("--default-draft-model", "d", "--default-draft-token-count", "2"), f"{HOME}/models/d not found"),
    (("--default-draft-model", "d"), "model.defaultDraftModel needs model.defaultDraftTokenCount"),
    (("--display-name", "x" * 64), "displayName"),
)


def test_what_a_model_cannot_be_is_refused_and_leaves_nothing(firectl: User, model_folder: Path) -> None:
    for flags, said in NO_SUCH_MODEL:
        ran = firectl("create", "model", "ember", str(model_folder), *flags)
        assert ran.code == 1, flags
        assert said in ran.err, flags
    assert firectl.json("list", "models") == []


def test_models_are_imported_from_nowhere(firectl: User) -> None:
    ran = firectl("import", "model", "llama-v3p1-8b-instruct", "--model-id", "mine")
    assert ran.code == 1
    assert "models are not fetched from other stores" in ran.err
    assert "firectl create model mine FOLDER" in ran.err


# --- datasets


@pytest.mark.usefixtures("uploads_worker")
def test_a_datasets_life(firectl: User, rows: Path, home: Path) -> None:
    made = firectl.done("create", "dataset", str(rows))
    assert "State: READY" in made.out
    assert firectl.json("get", "dataset", "chats")["example_count"] == "500"
    assert firectl.json("update", "dataset", "chats", "--display-name", "Chats")["display_name"] == "Chats"
    copied = firectl.json("dataset", "create", "copy", "--source", "chats")
    assert (copied["state"], copied["example_count"]) == ("READY", "500")
    firectl.done("download", "dataset", "copy", str(home / "got"), "--download-lineage")
    assert {p.relative_to(home / "got").parts[0] for p in (home / "got").glob("*/*.jsonl")} == {
        "copy",
        "chats",
    }
    assert all(p.read_bytes() == rows.read_bytes() for p in (home / "got").glob("*/*.jsonl"))
    for id in ("copy", "chats"):
        firectl.done("delete", "dataset", id)
    assert firectl.json("list", "datasets") == []


@pytest.mark.usefixtures("uploads_worker")
def test_a_dataset_is_split_into_parts_of_its_own_order(firectl: User, rows: Path, home: Path) -> None:
    firectl.done("create", "dataset", "d", str(rows))
    ran = firectl.done("split", "dataset", "d", "--chunk-size", "300", "--wait")
    parts = ran.out.splitlines()
    assert parts == [f"{HOME}/datasets/d-chunk-{number}-of-2" for number in (1, 2)]
    assert [firectl.json("get", "dataset", part)["example_count"] for part in parts] == ["300", "200"]
    assert firectl("split", "dataset", "d", "--chunk-size", "100").code == 1


@pytest.mark.usefixtures("uploads_worker")
def test_bad_rows_are_named_and_leave_nothing(firectl: User, home: Path) -> None:
    path = home / "bad.jsonl"
    path.write_text(f'{json.dumps(ROW)}\n{{"messages": []}}\nnot json\n')
    ran = firectl("create", "dataset", "bad", str(path))
    assert ran.code in (1, 3)
    assert "line 2: " in ran.err
    assert "line 3: " in ran.err
    assert firectl.json("list", "datasets") == []


NO_SUCH_SOURCE = (
    (
        ("--external-url", "gs://bucket/rows.jsonl"),
        "nothing is fetched from other places; upload the file",
    ),
    (("--source", "chats", "--filter", "a > 1"), "a dataset is copied as a whole"),
    (("--source", "nowhere"), "nowhere"),
    (("chats.jsonl", "--eval-protocol-output"), "evaluation protocols are not available"),
    (("chats.jsonl", "--format", "RL"), "RL"),
)


@pytest.mark.usefixtures("chats")
def test_sources_that_there_are_not_are_refused_by_name(firectl: User, rows: Path) -> None:
    for flags, said in NO_SUCH_SOURCE:
        ran = firectl("create", "dataset", "d", *flags)
        assert ran.code == 1, flags
        assert said in ran.err, flags
    assert firectl("get", "dataset", "d").code == 1


# --- deployments


@pytest.mark.usefixtures("base")
def test_a_deployments_life(firectl: User) -> None:
    made = firectl.done("create", "deployment", "base", "--deployment-id", "d", "--min-replica-count", "1")
    assert "State: CREATING" in made.out
    assert "firectl get deployment d" in made.err
    changed = firectl.json("update", "deployment", "d", "--display-name", "Mine", "--max-replica-count=3")
    assert (changed["display_name"], changed["max_replica_count"]) == ("Mine", 3)
    assert firectl.json("deployment", "scale", "d", "--replica-count", "2")["desired_replica_count"] == 2
    assert [d["name"] for d in firectl.json("list", "deployments")] == [f"{HOME}/deployments/d"]
    firectl.done("delete", "deployment", "d")
    assert "DELET" in firectl.json("get", "deployment", "d")["state"]


@pytest.mark.usefixtures("base")
def test_a_request_can_be_checked_without_creating_anything(firectl: User) -> None:
    ran = firectl.done("create", "deployment", "base", "--validate-only", "--enable-addons")
    assert "Enable Addons: true" in ran.out
    assert "nothing was created" in ran.err
    assert firectl.json("list", "deployments") == []


NO_SUCH_DEPLOYMENT = (
    (("--draft-model", "base"), "draftModel is accounts/hearth/models/base itself"),
    (("--draft-model", "none"), "none not found"),
    (("--draft-token-count", "2"), "draftTokenCount 2 needs ngramSpeculationLength"),
    (("--ngram-speculation-length", "2", "--disable-speculative-decoding"), "exclude each other"),
    (("--enable-mtp",), "models are served without heads that guess ahead"),
    (("--long-prompt",), "and models run on the CPU here"),
    (("--deployment-template", "t"), "deployment templates are not available"),
    (("--direct-route-type", "INTERNET"), "every request goes through the gateway"),
    (("--direct-route-api-keys", "k"), "every request goes through the gateway"),
    (("--expire-time", "2030-01-01T00:00:00Z"), "deployments do not expire"),
    (("--region", "US_IOWA_1"), "there are no regions to choose from"),
    (("--cluster-id", "byoc"), "--cluster-id is not supported"),
    (("--max-peft-batch-size", "8"), "maxPeftBatchSize 8 needs enableAddons"),
    (("--unused-auto-delete-duration", "1h30m"), "--unused-auto-delete-duration is not supported"),
    (("--deployment-shape", "none"), "none"),
    (("--precision", "FP-8"), "did you mean FP8"),
    (("--accelerator-type", "A100"), "did you mean NVIDIA_A100_80GB or NVIDIA_A100_40GB?"),
)


@pytest.mark.usefixtures("base")
def test_what_a_deployment_cannot_have_is_refused_by_name(firectl: User) -> None:
    for flags, said in NO_SUCH_DEPLOYMENT:
        ran = firectl("create", "deployment", "base", *flags)
        assert ran.code == 1, flags
        assert said in ran.err, flags
    assert firectl.json("list", "deployments") == []


def test_a_model_that_is_not_there_is_answered_with_the_near_one(firectl: User, base: ModelRow) -> None:
    ran = firectl("create", "deployment", "bse")
    assert ran.code == 1
    assert "did you mean base?" in ran.err


@pytest.mark.usefixtures("addon")
def test_an_adapter_is_put_on_a_deployment_and_taken_off(firectl: User) -> None:
    firectl.done("create", "deployment", "base", "--deployment-id", "d", "--enable-addons")
    nowhere = firectl("deploy", "addon")
    assert nowhere.code == 1
    assert "deployment is required" in nowhere.err
    assert f"firectl create deployment {HOME}/models/base --enable-addons" in nowhere.err

    made = firectl.json("load-lora", "addon", "--deployment", "d")
    assert (made["state"], made["deployment"]) == ("DEPLOYING", f"{HOME}/deployments/d")
    id = made["name"].rpartition("/")[2]
    assert firectl("model", "deploy", "addon", "--deployment-id", "d").code == 1  # it is there already
    assert firectl.json("update", "deployed-model", id, "--default", "--description", "v1")["default"] is True
    assert id in firectl.done("list", "deployed-models").out
    firectl.done("unload-lora", "addon", "--deployment-id", "d")
    assert firectl.json("get", "deployed-model", id)["state"] == "UNDEPLOYING"


@pytest.mark.usefixtures("addon")
def test_an_adapter_comes_with_the_deployment(firectl: User) -> None:
    firectl.done("create", "deployment", "base", "--enable-addons", "--model-id", "addon")
    models = {row["model"] for row in firectl.json("list", "deployed-models")}
    assert f"{HOME}/models/addon" in models

    refused = firectl("create", "deployment", "base", "--model-id", "addon")
    assert refused.code == 1
    assert "takes no addons" in refused.err
    assert f"was created, without {HOME}/models/addon" in refused.err


@pytest.mark.usefixtures("addon")
def test_adapters_are_never_merged(firectl: User) -> None:
    firectl.done("create", "deployment", "base", "--deployment-id", "d", "--enable-addons")
    ran = firectl("load-lora", "addon", "--deployment", "d", "--replace-merged-addon")
    assert (ran.code, "merged" in ran.err) == (1, True)


# --- fine-tuning jobs


@pytest.mark.usefixtures("chats")
def test_a_fine_tuning_jobs_life(firectl: User, home: Path) -> None:
    (home / "settings.yaml").write_text(
        "dataset: chats\nbase_model: accounts/hearth/models/base\nconversation: {}\nlearning_rate: 1e-4\n"
    )
    flags = ("--job-id", "j", "--model-id", "tuned", "--epochs", "2.5", "--evaluation-split", "0.2")
    made = firectl.done("create", "fine-tuning-job", "--settings-file", "settings.yaml", *flags)
    assert made.out == "j\n"
    job = firectl.json("get", "fine-tuning-job", "j")
    assert (job["epochs"], job["learning_rate"], job["evaluation_split"]) == (2.5, 1e-4, 0.2)
    assert firectl.json("update", "ftj", "j", "--display-name", "Mine")["display_name"] == "Mine"
    ran = firectl.done("export-metrics", "fine-tuning-job", "j")
    assert (ran.out, "has logged nothing yet" in ran.err) == ("", True)
    assert "j" in firectl.done("list", "fine-tuning-jobs").out
    firectl.done("delete", "fine-tuning-job", "j")


NO_SUCH_JOB = (
    (("--draft-base-model", "tiny"), "draft models are not available"),
    (("--wandb-project", "p"), "wandbApiKey is required to log to Weights & Biases"),
    (("--kind", "text_classification", "--text", "t", "--label", "l"), "this job reads COMPLETION"),
    (("--batch-size", "3"), "power of 2"),
    (("--dataset", "chat"), "did you mean chats?"),
    (("--base-model", "accounts/nobody/models/x"), "accounts/nobody/models/x"),
)


@pytest.mark.usefixtures("chats")
def test_a_fine_tuning_job_that_cannot_be_is_refused_by_name(firectl: User) -> None:
    for flags, said in NO_SUCH_JOB:
        kind = () if "--kind" in flags else ("--kind", "conversation")
        ran = firectl("create", "fine-tuning-job", *JOB, *kind, *flags)
        assert (ran.code, ran.out) == (1, ""), flags
        assert said in ran.err, flags
    assert firectl.json("list", "fine-tuning-jobs") == []


@pytest.mark.usefixtures("chats")
def test_a_supervised_jobs_life(firectl: User, put_job: Callable[..., FineTuningJobRow]) -> None:
    flags = ("--job-id", "j", "--output-model", "tuned", "--epochs", "2", "--evaluation-dataset", "held-out")
    assert firectl.done("create", "sftj", *JOB, *flags).out == "j\n"
    assert firectl.json("get", "sftj", "j")["output_model"] == f"{HOME}/models/tuned"
    assert "j" in firectl.done("sftjs", "ls").out
    assert firectl.json("list", "fine-tuning-jobs") == []

    assert firectl.json("cancel", "supervised-fine-tuning-job", "j")["state"] == "JOB_STATE_CANCELLING"
    put_job("j", state="CANCELLED", status_code="CANCELLED")
    assert firectl.json("sftj", "resume", "j")["state"] == "JOB_STATE_PENDING"
    again = firectl("sftj", "resume", "j")
    assert (again.code, "cannot resume job in state: JOB_STATE_PENDING" in again.err) == (1, True)
    firectl.done("delete", "sftj", "j")


@pytest.mark.usefixtures("chats")
def test_a_job_takes_over_what_an_earlier_one_was_trained_with(firectl: User) -> None:
    settings = ("--learning-rate", "0.0002", "--lora-rank", "16", "--batch-size-samples", "4")
    firectl.done("create", "sftj", *JOB, *settings, "--job-id", "first", "--eval-auto-carveout")
    firectl.done("create", "sftj", "--source-job", "first", "--job-id", "second", "--epochs", "3")
    first, second = (firectl.json("get", "sftj", id) for id in ("first", "second"))
    same = ("dataset", "base_model", "learning_rate", "lora_rank", "batch_size_samples", "eval_auto_carveout")
    assert {key: second[key] for key in same} == {key: first[key] for key in same}
    assert (first["epochs"], second["epochs"]) == (1, 3)


@pytest.mark.usefixtures("chats")
def test_a_cost_is_estimated_without_a_job(firectl: User) -> None:
    assert firectl.done("estimate-cost", "sftj", *JOB).out.startswith("Estimated Cost: USD ")
    assert firectl.json("list", "sftjs") == []


NO_SUCH_SUPERVISED_JOB = (
    (("--turbo",), "there is one way to train"),
    (("--mtp-enable",), "multi-token prediction is not trained"),
    (("--mtp-num-draft-tokens", "2"), "multi-token prediction is not trained"),
    (("--mtp-freeze-base-model",), "multi-token prediction is not trained"),
    (("--full-parameter-tuning",), "jobs train LoRA adapters"),
    (("--lora-rank", "0"), "jobs train LoRA adapters"),
    (("--use-reservation",), "none are set aside"),
    (("--wandb",), "wandbConfig.apiKey is required to log to Weights & Biases"),
    (("--wandb-entity", "e", "--wandb-api-key", "k"), "wandbConfig.project is required"),
    (("--aws-credentials-secret", "s"), "jobs read uploaded datasets only"),
    (("--aws-iam-role", "r"), "jobs read uploaded datasets only"),
    (("--azure-credentials-secret", "s"), "jobs read uploaded datasets only"),
    (("--azure-managed-identity-client-id", "c"), "jobs read uploaded datasets only"),
    (("--azure-tenant-id", "t"), "jobs read uploaded datasets only"),
    (("--nodes", "2"), "a job trains on one machine"),
    (("--batch-size", "4096", "--batch-size-samples", "4"), "give one of them"),
)


@pytest.mark.usefixtures("chats")
def test_a_supervised_job_that_cannot_be_is_refused_by_name(firectl: User) -> None:
    for flags, said in NO_SUCH_SUPERVISED_JOB:
        ran = firectl("create", "sftj", *JOB, *flags)
        assert (ran.code, ran.out) == (1, ""), flags
        assert said in ran.err, flags
    assert firectl.json("list", "sftjs") == []


@pytest.mark.usefixtures("chats")
def test_a_job_is_made_of_full_names_too(firectl: User) -> None:
    names = ("--base-model", f"{HOME}/models/base", "--dataset", f"{HOME}/datasets/chats")
    firectl.done("create", "sftj", *names, "--job-id", "j", "--quiet")
    assert firectl.json("get", "sftj", f"{HOME}/supervisedFineTuningJobs/j")["state"] == "JOB_STATE_CREATING"


@pytest.mark.usefixtures("chats")
def test_metrics_come_from_where_the_trainer_put_them(
    firectl: User, put_job: Callable[..., FineTuningJobRow], object_store: ObjectStore
) -> None:
    firectl.done("create", "sftj", *JOB, "--job-id", "j")
    row = put_job("j", attempt=1, state="RUNNING")
    object_store.put_bytes(row.prefix + "metrics.jsonl", b'{"step": 1, "loss": 2.5}\n')
    assert firectl.json("export-metrics", "sftj", "j") == [{"step": 1, "loss": 2.5}]
    assert firectl.done("sftj", "export-metrics", "j", "--format", "csv").out == "step,loss\n1,2.5\n"


def test_jobs_of_kinds_that_there_are_not_are_refused_by_name(firectl: User) -> None:
    for words in (("list", "batch-inference-jobs"), ("batch-inference-job", "create")):
        ran = firectl(*words)
        assert (ran.code, "not available here" in ran.err) == (1, True), words
