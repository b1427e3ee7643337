"""The sweep file: read, checked, expanded and placed. Every error it can have is raised here."""
