"""Made by schemas/generate; not edited."""
