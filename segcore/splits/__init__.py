"""Assignment of groups to splits, the leakage check, and the preparation of the data."""
