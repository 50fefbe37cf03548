"""Content of the report: inputs, rows, pictures, and the section on champion and challengers."""
