"""Networks that images go into and features come out of; one file a family."""
