"""Layer 4: roles in processes of their own, as the service knows them over the provider's LAN."""
