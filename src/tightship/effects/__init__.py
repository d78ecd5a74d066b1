"""The door: the one function through which agents reach the outside."""
