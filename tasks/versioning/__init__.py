"""DVC and git: stages, results, revisions."""
