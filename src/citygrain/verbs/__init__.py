"""The verbs of the command line, one file each: a configuration in, the library called, the outcome told."""
