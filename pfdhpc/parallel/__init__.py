"""Ranks, teams, devices and the channels between them."""
