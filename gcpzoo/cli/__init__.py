"""The command line: ``gcpzoo COMMAND``, or ``python cli.py COMMAND`` in a checkout."""
