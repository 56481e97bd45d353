"""Study files to start from, and programs that use the packages."""
