"""Engines that run in a child process of the rank, so that a crash or a hang costs the child and not the job."""
