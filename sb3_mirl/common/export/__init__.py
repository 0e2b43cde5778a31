"""Model files that hold data only and run no code when they are loaded."""
