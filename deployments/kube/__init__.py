"""How a Kubernetes API server is reached and watched. No rows; nothing here decides what should run."""
