"""What runs in pfl-research's environment: started by its Python, and never imported here."""
