"""The program that every bundle ships, which knows nothing of the project; the project decodes images by it as well."""
