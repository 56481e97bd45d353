"""The program in every bundle, which knows nothing of the project and decodes its images too; reading bundles back."""
