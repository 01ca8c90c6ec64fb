"""What `firectl help TOPIC` prints. Indented lines stand as they are; other paragraphs are wrapped."""

from typing import NamedTuple


class Topic(NamedTuple):
    """One page of help that belongs to no single command."""

    name: str
    title: str
    text: str


TOPICS = {
    topic.name: topic
    for topic in (
        Topic(
            "filters",
            "choosing and sorting what a list shows",
            """
Every list takes --filter and --order-by; the server does the work. A filter compares fields, named as in
`-o json`, with values:

  firectl list models --filter 'state = READY'
  firectl list models --filter 'kind = HF_PEFT_ADDON AND public = false'
  firectl list datasets --filter 'create_time > "2025-01-01T00:00:00Z"'
  firectl list deployments --filter 'display_name = "llama*"'
  firectl list deployments --filter 'annotations.team:research'
  firectl list datasets --filter 'NOT state = READY'

The comparisons are = != < <= > >= and :, which asks whether a field has a value (`description:*`), a map a
key, or a list an element. Quote what holds more than letters, digits and _. A * at either end of a quoted
text stands for anything. Combine with AND, OR, NOT and parentheses. OR binds tighter than AND:
`a AND b OR c` means `a AND (b OR c)`. A word alone looks for that text in names.

Sort by a field, or by several; desc turns the order around:

  firectl list models --order-by 'create_time desc'
  firectl list deployments --order-by 'state, create_time desc'

In a shell, put the whole filter in single quotes. A mistake is answered with the place where it is.
""",
        ),
        Topic(
            "names",
            "ids, full names, and other accounts",
            """
A resource is named by its id, or in full:

  firectl get model my-model
  firectl get model accounts/my-account/models/my-model

A bare id means one of your own account. For another account's, give the full name or the account:

  firectl list models -a fireworks

Commands read verb first or noun first, and nouns may stand in the singular or the plural; these are the same:

  firectl list models
  firectl models list
  firectl ls model

Verbs and nouns have short names too: ls for list, rm for delete, ftj for fine-tuning-job.
""",
        ),
        Topic(
            "settings-files",
            "a fine-tuning job from a YAML file",
            """
`firectl create fine-tuning-job --settings-file FILE` reads the job's settings from YAML. Flags on the command
line win over the file. An example:

  dataset: my-dataset
  base_model: accounts/my-account/models/my-model
  conversation:
  epochs: 2
  learning_rate: 1e-4
  lora_rank: 16

The keys:

  dataset           the dataset's id or name
  base_model        the model to start from; or warm_start_from, an adapter
  conversation      jinja_template, or nothing for the model's own template
  text_completion   input_template and output_template, with {fields}
  text_classification   text and label: the names of two fields
  evaluation        true to measure the model on a part of the dataset
  evaluation_split  how large that part is, such as 0.15
  epochs, learning_rate, batch_size, lora_rank
  wandb_entity, wandb_project, wandb_api_key
  model_id, job_id  made up by default

Of conversation, text_completion and text_classification a job has exactly one.
""",
        ),
        Topic(
            "exit-codes",
            "what a script can tell from how firectl ends",
            """
  0    it worked
  1    it failed: the server refused, could not be reached, or a file is wrong
  2    the command line is wrong; nothing was sent
  3    what --wait waited for ended badly
  4    --wait-timeout ran out; what was waited for goes on
  130  stopped with Ctrl-C
  141  the reader of the output went away, as in `firectl list models | head -1`

With 3 and 4 the command itself was accepted: what it asked for exists on the server.
""",
        ),
        Topic(
            "output",
            "text, JSON and YAML, and what goes where",
            """
Results go to stdout and nothing else does: notes, progress and errors go to stderr. `-o text`, the default,
is for people. Scripts take `-o json` or `-o yaml`: one document, field names in snake_case, a list as an
array.

  firectl get deployment my-deployment -o json
  firectl list models -o yaml

A list shows all there is. `--page-size 20` shows the first 20 and names the `--page-token` that the next
ones begin at.

`--quiet` leaves out progress and notes. `--dry-run` prints the request that a command would send, and
sends nothing. `--debug` shows every request on stderr; keys are never shown. NO_COLOR=1 turns colours off.
""",
        ),
        Topic(
            "profiles",
            "keys, accounts and servers, and where they come from",
            """
firectl needs a server, a key and perhaps an account. For each it takes the first that it finds:

  1. a flag: --base-url, --api-key, --account-id
  2. FIREWORKS_BASE_URL, FIREWORKS_API_KEY, FIREWORKS_ACCOUNT_ID
  3. ~/.fireworks/auth.ini, then settings.ini beside it

A profile is a section of these files. `-p NAME` takes that section, which then wins over the environment:

  firectl set-api-key KEY -p staging --base-url http://staging:8600
  firectl list models -p staging

Without an account, the key's own is used. `firectl whoami` shows what is used.
""",
        ),
    )
}
