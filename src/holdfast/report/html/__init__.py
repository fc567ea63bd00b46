"""The report as one HTML page; `page.render` makes it."""
