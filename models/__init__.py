"""Small trained models, and the scripts that made them."""
