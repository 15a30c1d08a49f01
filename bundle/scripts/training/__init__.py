"""Training: from labelled volumes to prompted views, their loss and the forward call that every trainer makes."""
