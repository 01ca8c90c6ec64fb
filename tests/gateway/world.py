"""Rows for the tests: accounts with keys, models, deployments and what is loaded on them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from controlplane.bootstrap import create_key, ensure_account, ensure_user
from controlplane.db import Database
from controlplane.resources.tables import (
    DeployedModelRow,
    DeploymentRow,
    ModelRow,
    ReplicaAdapterRow,
    ReplicaRow,
)

CONVERSATION = {"style": "jinja", "template": "{{ messages }}"}


@dataclass
class World:
    """Writes what the control plane and the workers would have written."""

    db: Database
    keys: dict[str, str] = field(default_factory=dict)

    def add_account(self, account_id: str, role: str = "user") -> str:
        """A new account with one user; its key."""
        with self.db.session() as session:
            email = f"{account_id}@example.org"
            ensure_account(session, account_id, email)
            user = ensure_user(session, account_id, "someone", email, role)
            self.keys[account_id] = create_key(session, user, "test")
        return self.keys[account_id]

    def add_base(
        self,
        account_id: str,
        model_id: str,
        *,
        chat: bool = True,
        public: bool = False,
        tool_template: str = "",
        context_length: int = 128,
        images: bool = False,
        hub: str = "",
        **facts: object,
    ) -> uuid.UUID:
        """`tool_template` is a chat template that shows tools; with a `task` it is an embedding model."""
        conversation = {"style": "jinja", "template": tool_template} if tool_template else CONVERSATION
        return self._add(
            ModelRow(
                account_id=account_id,
                id=model_id,
                kind="EMBEDDING_MODEL" if "task" in facts else "HF_BASE_MODEL",
                facts=facts,
                supports_image_input=images,
                hugging_face_url=f"https://huggingface.co/{hub}" if hub else "",
                state="READY",
                public=public,
                context_length=context_length,
                conversation_config=conversation if chat else None,
                supports_tools=bool(tool_template),
            )
        )

    def add_addon(
        self, account_id: str, model_id: str, base: uuid.UUID, *, template: str = "", tools: bool = False
    ) -> uuid.UUID:
        """`template` is its own chat template, which shows tools or does not."""
        return self._add(
            ModelRow(
                account_id=account_id,
                id=model_id,
                kind="HF_PEFT_ADDON",
                state="READY",
                base_model_uid=base,
                conversation_config={"style": "jinja", "template": template} if template else None,
                supports_tools=tools,
            )
        )

    def add_deployment(
        self, account_id: str, deployment_id: str, base: uuid.UUID, **values: str | int
    ) -> uuid.UUID:
        return self._add(
            DeploymentRow(
                account_id=account_id,
                id=deployment_id,
                base_model_uid=base,
                **{"state": "READY", "status_message": "", **values},
            )
        )

    def add_replica(
        self, deployment: uuid.UUID, url: str, served_name: str, state: str = "READY"
    ) -> uuid.UUID:
        where = urlsplit(url)
        return self._add(
            ReplicaRow(
                deployment_uid=deployment,
                state=state,
                host=where.hostname,
                port=where.port,
                served_name=served_name,
            )
        )

    def load(
        self,
        account_id: str,
        deployed_id: str,
        model: uuid.UUID,
        deployment: uuid.UUID,
        *,
        default: bool = True,
        public: bool = False,
        state: str = "DEPLOYED",
        status: tuple[str, str] = ("OK", ""),
    ) -> uuid.UUID:
        """Load a model on a deployment."""
        return self._add(
            DeployedModelRow(
                account_id=account_id,
                id=deployed_id,
                model_uid=model,
                deployment_uid=deployment,
                default=default,
                public=public,
                state=state,
                status_code=status[0],
                status_message=status[1],
            )
        )

    def prove(self, replica: uuid.UUID, deployed_model: uuid.UUID, engine_name: str) -> None:
        """Say that a probe has found the addon working on the replica."""
        with self.db.session() as session:
            session.add(
                ReplicaAdapterRow(
                    replica_uid=replica,
                    deployed_model_uid=deployed_model,
                    engine_name=engine_name,
                    proven_at=datetime.now(UTC),
                )
            )

    def _add(self, row: ModelRow | DeploymentRow | ReplicaRow | DeployedModelRow) -> uuid.UUID:
        with self.db.session() as session:
            _insert(session, row)
            return row.uid


def _insert(session: Session, row: object) -> None:
    session.add(row)
    session.flush()
