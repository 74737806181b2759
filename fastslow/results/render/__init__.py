"""Drawing, HTML, Markdown and layout shared by every page."""
