"""Pages for people in a browser: read-only, rendered here, without anything from another host."""
