"""This project beside its peers: each contestant its own process, its own group, the same records, in one run."""
