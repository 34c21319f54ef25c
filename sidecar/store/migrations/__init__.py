"""Migrations, one file each; `sidecar.store.engine` runs them under a lock."""
