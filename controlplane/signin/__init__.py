"""Sign-in by OpenID Connect: Hearth is the provider's client, and gives out tokens of its own."""
