"""The kinds of files: what a file is, its text, and its rows."""
