"""The command line. Needs the extra `cli`; nothing else of daramjwee imports this room."""
