"""Every picture of the project: data in, one file out; no global state, no window."""
