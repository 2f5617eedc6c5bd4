"""Data: where pictures come from, which ones make up which batch, and what is done to them on the way."""
