"""The data card: the result of a check of the data, for the terminal and as a page."""
