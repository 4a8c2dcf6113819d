"""The site: its pages, the pages made from the project, and the tutorials."""
