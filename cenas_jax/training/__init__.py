"""Loops that train networks: the carbon forecaster."""
