"""What turns features into class scores; one file a head."""
