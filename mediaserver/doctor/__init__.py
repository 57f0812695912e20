"""``mediaserver doctor``: what an operator on call wants to know of a node, running or not. It changes nothing."""
