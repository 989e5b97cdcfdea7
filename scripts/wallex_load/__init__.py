"""What the load scripts share: client, operations, the script's own books, checks, output.

They see the service through HTTP only. Standard library, Python 3.8 or newer.
"""
