"""The services that Hearth stands on, embedded: PostgreSQL, Valkey and SeaweedFS out of wheels."""
