"""The optimised models: penalties, solvers, and the frame in which they iterate."""
