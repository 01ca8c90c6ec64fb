from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.checks.architectures import GENERATE
from controlplane.checks.tool_calls import CallForm, call_form
from controlplane.db import Base, LeaseColumns, ResourceColumns, StateColumns


class ModelRow(ResourceColumns, StateColumns, LeaseColumns, Base):
    """An ML model. `files` and `facts` are what was registered and what the check found."""

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),
        ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        Index("ix_models_account_id_create_time", "account_id", "create_time", "uid"),
        Index("ix_models_account_id_state", "account_id", "state", "id"),
    )

    kind: Mapped[str] = mapped_column(String(40))
    description: Mapped[str] = mapped_column(default="")
    github_url: Mapped[str] = mapped_column(default="")
    hugging_face_url: Mapped[str] = mapped_column(default="")
    public: Mapped[bool] = mapped_column(default=False)
    context_length: Mapped[int] = mapped_column(default=0)
    supports_image_input: Mapped[bool] = mapped_column(default=False)
    supports_tools: Mapped[bool] = mapped_column(default=False)
    default_draft_model: Mapped[str] = mapped_column(default="", server_default="")
    """The name of the one that guesses ahead for it in new deployments. It may be gone."""
    default_draft_token_count: Mapped[int] = mapped_column(default=0, server_default="0")
    base_model_uid: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("models.uid"), default=None, index=True
    )
    """The base of an addon."""
    fine_tuning_job: Mapped[str] = mapped_column(default="")
    lineage: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Of a model that a job has made: what it was made of, see `fine_tuning_jobs.lineage`."""
    created_by: Mapped[str] = mapped_column(default="")
    files: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """file name → {"size": int, "sha256": str}; `sha256` is empty until the check has read the file."""
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the check read: architecture, parameter count, context length, LoRA rank and the like.

    Before it, what the client said of the files that were to come.
    """
    conversation_config: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    problems: Mapped[list[Any]] = mapped_column(default=list)
    """The problems that the last check found: [{"file", "field", "reason"}]."""

    @property
    def name(self) -> str:
        return f"accounts/{self.account_id}/models/{self.id}"

    @property
    def call_form(self) -> CallForm:
        """How the model is shown functions and calls them, when it is deployed."""
        template = str((self.conversation_config or {}).get("template") or "")
        return call_form(template, str(self.facts.get("model_type") or ""), self.supports_tools)

    @property
    def task(self) -> str:
        """What its engines do, when it is deployed: one of `controlplane.checks.architectures`."""
        return str(self.facts.get("task") or GENERATE)

    @property
    def prefix(self) -> str:
        """Where the model's files lie in the object store."""
        return f"accounts/{self.account_id}/models/{self.uid}/"
