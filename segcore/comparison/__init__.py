"""Comparison of evaluation tables: intervals, ranks, paired tests, verdict and leaderboard."""
