"""Reports what failed on a day, as HTML, Markdown and JSON."""
