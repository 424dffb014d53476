"""The frontier: accuracy against the time that condensing took, a curve per method, next to selections."""
