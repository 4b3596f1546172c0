"""Evaluates alert rules, keeps the state of alerts, and delivers notices."""
