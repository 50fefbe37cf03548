"""Fork server: stages start from a process that has already loaded their packages."""
