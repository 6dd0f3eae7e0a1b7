"""The verbs; one file each, with one `Config` and one `run(config)`."""
