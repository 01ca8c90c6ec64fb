"""`embeddings` and `rerank`: asked of models of kind EMBEDDING_MODEL."""

from __future__ import annotations

from controlplane.checks.architectures import EMBED, SCORE
from gateway.embeddings.answer import EmbeddingVoice, RerankVoice
from gateway.embeddings.request import translate_embeddings, translate_rerank
from gateway.exchange import Kind

EMBEDDINGS = Kind("embeddings", translate_embeddings, EmbeddingVoice, "embeddings", task=EMBED)
RERANK = Kind("rerank", translate_rerank, RerankVoice, "rerank", task=SCORE)
