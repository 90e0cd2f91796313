"""Random models, samples and graphs against oracles; each module is a command."""
