"""Prefect flows: order, schedule and retries of the stages."""
