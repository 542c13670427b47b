"""The app: routes, auth, server, assistant, store."""
