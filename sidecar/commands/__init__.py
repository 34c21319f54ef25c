"""What each command does. `sidecar.cli` imports them lazily."""
