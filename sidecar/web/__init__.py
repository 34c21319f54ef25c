"""Doors: notifications for the EHR, health and metrics for operators, the admin socket for the command line."""
