"""What tools/corpus, tools/bench and tools/peers are made of. Nothing of the package imports it."""
