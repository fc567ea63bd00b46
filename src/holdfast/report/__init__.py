"""Shows results as a page, as markdown and in a terminal; computes nothing."""
