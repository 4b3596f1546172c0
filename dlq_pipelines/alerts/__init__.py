"""What goes wrong, who is told, and did it reach them?"""
