"""What is shown: results on stdout, and on stderr what a person sees while something takes time."""
