"""Checks of what users upload: datasets, base models and adapters. Hostile until checked.

Everything here is synchronous, reads in bounded memory, starts no engine and imports no torch. Reports are
plain dataclasses with `to_dict()` for the database; complaints are sentences for the files' owner. `store` is
an `ObjectStore`, `prefix` a row's prefix with its slash, and `registered_files` is name → size.

Datasets (`datasets.py`)::

    report = validate_dataset(store.open_stream(key), format=None)   # never raises for what the bytes hold
    report.ok, report.bad_row_count, report.first_problem(), report.bad_rows   # BadLine(line, reason, file)
    merge_reports({file_name: report, …})   # several shards: check the later ones with the first one's format
    file entry of the row: {"size": report.bytes, "sha256": report.sha256}

Base models (`model_files.py`)::

    report = validate_base_model(store, prefix, registered_files)    # or InvalidModel(problems)
    report.files (name → size, sha256), .context_length, .supports_tools, .chat_template, .warnings, …

Adapters (`adapter_files.py`)::

    base = BaseModelFacts.from_dict({**row.facts, "name": row.name}) # facts: BaseModelReport.to_dict()
    report = validate_adapter(store, prefix, registered_files, base) # or InvalidModel(problems)
    report.r, .target_modules, .conversation_config ({"style": "jinja", "template"}|None), .files, …

`InvalidModel.problems` is a list of `Problem(file, field, reason)`; `str(error)` is the first of them.
`StorageUnavailable` passes through everywhere: it says nothing about the files, so the check is tried again.
A single template (of a fine-tuning job, say) is checked by `chat_template.check_chat_template`.
"""
