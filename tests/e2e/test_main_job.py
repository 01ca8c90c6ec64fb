"""The main job on a whole platform: what users do after `make up`, with the clients that they have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx
import psycopg
import pytest
from fireworks import AsyncFireworks, Fireworks
from fireworks import NotFoundError as FireworksNotFoundError
from openai import AsyncOpenAI, NotFoundError, OpenAI

from launcher.services.postgres import Postgres

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(600)]

QUICKSTART = Path(__file__).resolve().parents[2] / "quickstart"
HELD_OUT = [
    json.loads(line)["messages"] for line in (QUICKSTART / "data" / "heldout.jsonl").read_text().splitlines()
]
QUESTION, ANSWER = HELD_OUT[0][:-1], HELD_OUT[0][-1]["content"]


def test_the_tuned_model_answers_what_the_base_cannot(deployed):
    rows = HELD_OUT[:10]
    right = {"ember": 0, "ember-tickets": 0}
    for model in right:
        for messages in rows:
            answer = deployed.chat(f"accounts/{deployed.account}/models/{model}", messages[:-1]).json()
            right[model] += answer["choices"][0]["message"]["content"].strip() == messages[-1]["content"]
    assert right["ember"] == 0
    assert right["ember-tickets"] >= 9


def test_the_job_says_what_it_did(deployed):
    job = deployed.get("fineTuningJobs/tickets")
    assert job["state"] == "COMPLETED"
    assert job["modelId"] == "ember-tickets"
    assert job["progress"]["step"] == job["progress"]["maxSteps"]
    metrics = deployed.get("fineTuningJobs/tickets:metrics")["metrics"]
    assert metrics[-1]["loss"] < 0.05 < metrics[0]["loss"]
    log = deployed.get("fineTuningJobs/tickets:logs")
    assert log["complete"]
    assert f"step {job['progress']['step']} of {job['progress']['maxSteps']}: loss" in log["text"]
    model = deployed.get("models/ember-tickets")
    assert (model["kind"], model["state"]) == ("HF_PEFT_ADDON", "READY")
    assert model["fineTuningJob"] == f"accounts/{deployed.account}/fineTuningJobs/tickets"
    assert [ref["state"] for ref in model["deployedModelRefs"]] == ["DEPLOYED"]


def test_every_form_of_a_models_name_reaches_it(deployed):
    account = deployed.account
    ref = deployed.get("models/ember-tickets")["deployedModelRefs"][0]
    forms = [
        "ember-tickets",
        f"{account}/ember-tickets",
        f"accounts/{account}/models/ember-tickets",
        f"accounts/{account}/models/ember-tickets#accounts/{account}/deployments/ember",
        f"{account}/ember-tickets#{account}/ember",
        ref["name"],
    ]
    for form in forms:
        answer = deployed.chat(form, QUESTION)
        assert answer.status_code == 200, f"{form}: {answer.text}"
        assert answer.json()["choices"][0]["message"]["content"].strip() == ANSWER, form


def test_the_openai_package_works_unchanged(deployed):
    client = OpenAI(base_url=f"{deployed.url}/inference/v1", api_key=deployed.key)
    model = f"accounts/{deployed.account}/models/ember-tickets"
    whole = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=96)
    assert whole.choices[0].message.content.strip() == ANSWER
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0
    pieces = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        temperature=0,
        max_tokens=96,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(pieces)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == ANSWER
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    completion = client.completions.create(model=model, prompt="12 + 30 =", max_tokens=4)
    assert completion.choices[0].text
    assert model in [listed.id for listed in client.models.list()]
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="accounts/nobody/models/none", messages=QUESTION)


async def test_the_openai_package_works_asynchronously(deployed):
    async with AsyncOpenAI(base_url=f"{deployed.url}/v1", api_key=deployed.key) as client:
        stream = await client.chat.completions.create(
            model="ember-tickets", messages=QUESTION, temperature=0, max_tokens=96, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text.strip() == ANSWER


def test_the_fireworks_package_works_unchanged(deployed, tmp_path):
    client = Fireworks(api_key=deployed.key, base_url=deployed.url, account_id=deployed.account)
    assert [account.name for account in client.accounts.list()] == [f"accounts/{deployed.account}"]
    assert client.users.create(email="sdk@example.com", role="user", user_id="sdk").role == "user"
    assert "sdk" in {user.name.rsplit("/", 1)[1] for user in client.users.list()}
    assert client.models.get("ember").context_length > 0
    assert {m.name.rsplit("/", 1)[1] for m in client.models.list()} >= {"ember", "ember-tickets"}
    client.datasets.create(dataset_id="sdk-data", dataset={"user_uploaded": {}})
    row = json.dumps({"messages": HELD_OUT[0]})
    client.datasets.upload("sdk-data", file=("a.jsonl", row.encode()))
    assert client.datasets.get("sdk-data").state == "READY"
    client.datasets.delete("sdk-data")
    assert client.deployments.get("ember").state == "READY"
    assert [d.name.rsplit("/", 1)[1] for d in client.deployments.list()] == ["ember"]
    assert len(list(client.lora.list())) == 2
    answer = client.chat.completions.create(
        model=f"accounts/{deployed.account}/models/ember-tickets",
        messages=QUESTION,
        temperature=0,
        max_tokens=96,
    )
    assert answer.choices[0].message.content.strip() == ANSWER
    stream = client.chat.completions.create(
        model="ember-tickets", messages=QUESTION, temperature=0, max_tokens=96, stream=True
    )
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices).strip() == ANSWER
    )


def test_the_fireworks_package_uploads_deploys_and_cleans_up(deployed, until):
    """Without an engine of its own: the deployment is made scaled to zero."""
    client = Fireworks(api_key=deployed.key, base_url=deployed.url, account_id=deployed.account)
    files = {path.name: path.read_bytes() for path in (QUICKSTART / "model").iterdir()}
    client.models.create(
        model_id="sdk-model", model={"kind": "HF_BASE_MODEL", "display_name": "From the SDK"}
    )
    sizes = {name: str(len(content)) for name, content in files.items()}
    urls = client.models.get_upload_endpoint("sdk-model", filename_to_size=sizes).filename_to_signed_urls
    for name, content in files.items():
        assert httpx.put(urls[name], content=content).status_code == 200
    client.models.validate_upload("sdk-model")
    assert client.models.get("sdk-model").state == "READY"
    assert client.models.update("sdk-model", description="a copy").description == "a copy"

    ember = f"accounts/{deployed.account}/models/ember"
    made = client.deployments.create(
        base_model=ember,
        deployment_id="sdk",
        max_replica_count=0,
        enable_addons=True,
        disable_auto_deploy=True,
    )
    assert (made.base_model, made.desired_replica_count) == (ember, 0)
    loaded = client.lora.load(
        model=f"accounts/{deployed.account}/models/ember-tickets",
        deployment=f"accounts/{deployed.account}/deployments/sdk",
    )
    client.lora.unload(loaded.name.rsplit("/", 1)[1])
    until(lambda: loaded.name not in [item.name for item in client.lora.list()], 60)
    client.deployments.delete("sdk")
    until(lambda: client.deployments.get("sdk").state == "DELETED", 60)
    client.models.delete("sdk-model")
    with pytest.raises(FireworksNotFoundError):
        client.models.get("sdk-model")


async def test_the_fireworks_package_works_asynchronously(deployed):
    async with AsyncFireworks(
        api_key=deployed.key, base_url=deployed.url, account_id=deployed.account
    ) as client:
        answer = await client.chat.completions.create(
            model="ember-tickets", messages=QUESTION, temperature=0, max_tokens=96
        )
    assert answer.choices[0].message.content.strip() == ANSWER


def test_usage_is_recorded(deployed, until):
    used = deployed.chat("ember-tickets", QUESTION).json()["usage"]
    query = "SELECT count(*) FROM ledger WHERE prompt_tokens = %s AND completion_tokens = %s"
    until(lambda: ask_database(deployed, query, used["prompt_tokens"], used["completion_tokens"]), 20)


def test_things_in_use_are_not_deleted(deployed):
    for command in (("delete", "model", "ember"), ("delete", "model", "ember-tickets")):
        refused = deployed.firectl(*command, check=False)
        assert refused.returncode == 1
        assert "cannot delete" in refused.stderr


def test_a_restart_brings_everything_back_by_itself(deployed, until):
    names = ("models", "datasets", "deployments", "deployedModels", "fineTuningJobs", "users")
    before = {name: deployed.get(name) for name in names}
    deployed.restart()
    for name in names:
        listed = {item["name"] for item in deployed.get(name)[name]}
        assert listed == {item["name"] for item in before[name][name]}, name
    until(lambda: deployed.chat("ember-tickets", QUESTION).status_code == 200)
    answer = deployed.chat("ember-tickets", QUESTION).json()
    assert answer["choices"][0]["message"]["content"].strip() == ANSWER
    assert deployed.get("deployments/ember")["state"] == "READY"


def engine_pids(platform):
    """The process groups of the platform's engines."""
    here = platform.data_dir
    pattern = f"api_server.*{here}|cpu_server.*{here}|{here}.*vllm"
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return {int(pid) for pid in found.stdout.split()}


def test_an_engine_that_is_killed_comes_back(deployed, until):
    """The whole process group of the engine dies, as when the kernel kills it."""
    until(lambda: deployed.chat("ember", QUESTION).status_code == 200)
    killed = engine_pids(deployed)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: engine_pids(deployed) - killed)
    until(lambda: deployed.chat("ember-tickets", QUESTION).status_code == 200)
    assert not engine_pids(deployed) & killed


def test_a_deployment_at_zero_wakes_for_a_request(deployed, until):
    deployed.firectl("scale", "deployment", "ember", "--replica-count", "0")
    until(lambda: not engine_pids(deployed))
    until(lambda: deployed.chat("ember-tickets", QUESTION).status_code == 200)
    answer = deployed.chat("ember-tickets", QUESTION).json()
    assert answer["choices"][0]["message"]["content"].strip() == ANSWER
    assert deployed.get("deployments/ember")["desiredReplicaCount"] == 1


def test_a_job_that_was_running_goes_on_from_its_checkpoint_after_a_restart(deployed, until):
    """Its metrics have each step once, and the trainer says at which it went on."""
    settings = ("--settings-file", str(QUICKSTART / "job.yaml"), "--dataset", "tickets", "--epochs", "12")
    names = ("--base-model", f"accounts/{deployed.account}/models/ember", "--model-id", "long-model")
    deployed.firectl("create", "fine-tuning-job", *settings, *names, "--job-id", "long")
    until(lambda: deployed.get("fineTuningJobs/long").get("progress", {}).get("step", 0) > 20)
    deployed.restart()
    job = until(lambda: ended(deployed.get("fineTuningJobs/long")))
    assert job["state"] == "COMPLETED", job["status"]
    steps = [record["step"] for record in deployed.get("fineTuningJobs/long:metrics")["metrics"]]
    assert steps == sorted(set(steps))
    assert job["progress"]["step"] == job["progress"]["maxSteps"] == steps[-1]
    query = "SELECT (result->'report'->>'resumed_from_step')::int FROM fine_tuning_jobs WHERE id = 'long'"
    assert ask_database(deployed, query) > 20
    deployed.firectl("delete", "fine-tuning-job", "long")
    until(lambda: deployed.firectl("get", "fine-tuning-job", "long", check=False).returncode == 1, 60)
    assert deployed.get("models/long-model")["state"] == "READY"


def ended(job):
    return job if job["state"] in ("COMPLETED", "FAILED") else None


def ask_database(platform, query, *values):
    """One value of the platform's own database, for what no endpoint shows yet."""
    known = json.loads((platform.data_dir / "services.json").read_text())["postgres"]
    url = Postgres(platform.data_dir / "postgres", known["port"], known["password"]).url
    with psycopg.connect(url) as connection:
        return connection.execute(query, values).fetchone()[0]
