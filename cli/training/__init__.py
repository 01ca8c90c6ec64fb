"""What both kinds of fine-tuning jobs share: their settings, their metrics, and how they end."""
