"""Guesses of the section `data` of params.yaml from the names and contents of a folder (`section.guess`)."""
