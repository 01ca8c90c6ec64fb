"""Where the jobs are, and what makes one."""

from __future__ import annotations

ACCOUNT = "/v1/accounts/hearth"
JOBS = f"{ACCOUNT}/supervisedFineTuningJobs"
SEED_JOBS = f"{ACCOUNT}/fineTuningJobs"
BASE = "accounts/hearth/models/base"
CHATS = {"dataset": "chats", "baseModel": BASE}
SEED_CHATS = {**CHATS, "conversation": {}}
