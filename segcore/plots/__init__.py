"""Charts and pictures of the report, also logged to the tracker; `palette` and `pictures` need no matplotlib."""
